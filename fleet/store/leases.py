"""Leases: one holder at a time, and an epoch that tells a later one from an earlier."""

from __future__ import annotations

from typing import Final

from fleet.store.api import Lease, Tx

BRIDGES: Final = "bridge:"
"""The lease that a leading bridge has is called so, and after its agent."""


def acquire(tx: Tx, name: str, holder: str, now_ms: int, ttl_ms: int) -> Lease | None:
    """The lease, where it is free, expired or the holder's own; None where another has it."""
    rows = tx.query("SELECT holder, epoch, expires_at_ms FROM leases WHERE name = ?", (name,))
    old_holder, epoch, expires_at_ms = rows[0] if rows else ("", 0, 0)
    if old_holder not in ("", holder) and expires_at_ms > now_ms:
        return None
    lease = Lease(name, holder, epoch + (old_holder != holder), now_ms + ttl_ms)
    tx.execute(
        "INSERT INTO leases (name, holder, epoch, expires_at_ms) VALUES (?, ?, ?, ?)"
        " ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, epoch = excluded.epoch,"
        " expires_at_ms = excluded.expires_at_ms",
        (lease.name, lease.holder, lease.epoch, lease.expires_at_ms),
    )
    return lease


def renew(tx: Tx, lease: Lease, now_ms: int, ttl_ms: int) -> Lease | None:
    """The lease with a new term; None where it was lost. Expired but untaken is not lost."""
    changed = tx.execute(
        "UPDATE leases SET expires_at_ms = ? WHERE name = ? AND holder = ? AND epoch = ?",
        (now_ms + ttl_ms, lease.name, lease.holder, lease.epoch),
    )
    return Lease(lease.name, lease.holder, lease.epoch, now_ms + ttl_ms) if changed else None


def release(tx: Tx, lease: Lease) -> None:
    """Give it up, so that the next one need not wait; nothing happens where it was lost."""
    tx.execute(
        "UPDATE leases SET holder = '', expires_at_ms = 0"
        " WHERE name = ? AND holder = ? AND epoch = ?",
        (lease.name, lease.holder, lease.epoch),
    )


def beginning(tx: Tx, prefix: str) -> list[Lease]:
    """Every lease whose name begins so, held or not."""
    rows = tx.query("SELECT name, holder, epoch, expires_at_ms FROM leases ORDER BY name")
    return [Lease(*row) for row in rows if row[0].startswith(prefix)]


def held(tx: Tx, lease: Lease) -> bool:
    """Whether nobody has taken the lease since."""
    return bool(
        tx.query(
            "SELECT 1 FROM leases WHERE name = ? AND holder = ? AND epoch = ?",
            (lease.name, lease.holder, lease.epoch),
        )
    )
