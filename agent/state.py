"""The agent's own state: its standing and health, one checkpoint for all replicas.

What it owns and owes stands in tables of its own (positions, equity, effects, lane states), each
committed with the event that changed it. This is the rest.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Final

import msgspec

from agent.modes import Health, Mode, Standing, ordered
from fleet.store import archive, checkpoints, equity, positions
from fleet.store.api import Tx
from fleet.store.archive import Intervention
from fleet.store.checkpoints import Checkpoint

PREFIX: Final = "agent/"
LOST: Final = "every checkpoint of the agent's state is damaged"

_encode = msgspec.json.Encoder(decimal_format="string").encode


class AgentState(msgspec.Struct, frozen=True):
    """Where the agent stands, and the health that was seen last."""

    standing: Standing = Standing()
    health: Health = Health()
    realised: Decimal = Decimal(0)
    open_positions: int = 0


class Kept(msgspec.Struct, frozen=True):
    """A state as it stands in the store; `damage` says what was refused on the way to it."""

    state: AgentState
    checkpoint: Checkpoint
    damage: str = ""


def load(tx: Tx, agent: str) -> Kept:
    """The agent's newest whole state; a new one where there never was any.

    Where none is whole, nothing is traded until an operator says so.
    """
    found = checkpoints.load(tx, PREFIX + agent)
    state, damage = AgentState(), ""
    if found.body:
        state = msgspec.json.decode(found.body, type=AgentState)
    if found.is_damaged and found.body:
        damage = f"checkpoint {found.newest} of {agent} is damaged; {found.seq} is used"
    elif found.is_damaged:
        damage = LOST
        state = AgentState(Standing("observation", LOST, ceiling="observation"))
    return Kept(state, found, damage)


def save(tx: Tx, known: Kept, state: AgentState, now_ms: int) -> bool:
    """Write the state that follows `known`; False where another replica was faster."""
    return checkpoints.save(tx, known.checkpoint, _encode(state).decode(), now_ms)


def every(tx: Tx) -> dict[str, AgentState]:
    """The state of each agent that has one, by its name in the book."""
    agents = [name.removeprefix(PREFIX) for name in checkpoints.names(tx, PREFIX)]
    return {agent: load(tx, agent).state for agent in agents}


def order_mode(
    tx: Tx, agent: str, mode: Mode, *, operator: str, note: str, now_ms: int
) -> AgentState:
    """Do an operator's word, and write it down; the state after it.

    The end of a shutdown lets the drawdown count anew, else it would be the next one.
    """
    kept = load(tx, agent)
    before = kept.state.standing
    after = msgspec.structs.replace(
        kept.state, standing=ordered(before, mode, operator, note, now_ms)
    )
    if before.mode == "shutdown" and mode != "shutdown":
        equity.rebase(tx, agent, now_ms)
        positions.accept(tx, agent)
    save(tx, kept, after, now_ms)
    done = Intervention(now_ms, operator, "mode", "agent", agent, before.mode, mode, note)
    archive.note(tx, [done])
    return after
