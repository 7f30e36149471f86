"""The agent's own state: its standing and health, one checkpoint for all replicas.

What it owns and owes stands in tables of its own (positions, equity, effects, lane states), each
committed with the event that changed it. This is the rest.

What must not be forgotten with a damaged checkpoint, an operator's word and any shutdown, is kept a
second time, under the number of the checkpoint that it was written with.
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
WORDS: Final = "word/"
LOST: Final = "every checkpoint of the agent's state is damaged"
_LOST: Final = Standing("observation", LOST, ceiling="observation")

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


class Word(msgspec.Struct, frozen=True):
    """A standing that holds until another word; `seq` is the checkpoint that had it first."""

    seq: int = 0
    standing: Standing = Standing()


def load(tx: Tx, agent: str) -> Kept:
    """The agent's newest whole state; a new one where there never was any.

    Where a newer one is damaged, the last word that came after the one that is used holds. Where
    none is whole, nothing is traded until an operator says so.
    """
    found = checkpoints.load(tx, PREFIX + agent)
    state = msgspec.json.decode(found.body, type=AgentState) if found.body else AgentState()
    if not found.is_damaged:
        return Kept(state, found)
    last = checkpoints.load(tx, WORDS + agent)
    word = msgspec.json.decode(last.body, type=Word) if last.body else Word()
    damage = f"checkpoint {found.newest} of {agent} is damaged; {found.seq} is used"
    if not found.body or last.is_damaged:
        is_shut = word.standing.mode == "shutdown"
        word, damage = word if is_shut else Word(standing=_LOST), LOST
    elif word.seq <= found.seq:
        return Kept(state, found, damage)
    return Kept(msgspec.structs.replace(state, standing=word.standing), found, damage)


def save(tx: Tx, known: Kept, state: AgentState, now_ms: int, *, is_word: bool = False) -> bool:
    """Write the state that follows `known`; False where another replica was faster."""
    if not checkpoints.save(tx, known.checkpoint, _encode(state).decode(), now_ms):
        return False
    before, after = known.state.standing, state.standing
    if is_word or (after.mode == "shutdown" and before.mode != "shutdown"):
        name = known.checkpoint.name.removeprefix(PREFIX)
        last = checkpoints.load(tx, WORDS + name)
        word = Word(known.checkpoint.newest + 1, after)
        checkpoints.save(tx, last, _encode(word).decode(), now_ms)
    return True


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
    save(tx, kept, after, now_ms, is_word=True)
    done = Intervention(now_ms, operator, "mode", "agent", agent, before.mode, mode, note)
    archive.note(tx, [done])
    return after
