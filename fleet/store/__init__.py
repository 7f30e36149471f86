"""Floor 1: what must survive a crash: journal, effects, cursors, leases, lanes, positions."""

from fleet.store.api import (
    BRIDGE,
    Candidate,
    Claim,
    Effect,
    EffectResult,
    KeyState,
    Lease,
    Settled,
    Standing,
    Store,
    Tx,
    Verdict,
)
from fleet.store.factory import open_store, place_of
from fleet.store.settings import StoreSettings

__all__ = [
    "BRIDGE",
    "Candidate",
    "Claim",
    "Effect",
    "EffectResult",
    "KeyState",
    "Lease",
    "Settled",
    "Standing",
    "Store",
    "StoreSettings",
    "Tx",
    "Verdict",
    "open_store",
    "place_of",
]
