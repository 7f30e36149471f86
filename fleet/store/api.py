"""What a store promises, and the values that go in and out of it.

Every value is frozen. Times are epoch milliseconds of the caller's clock; texts are UTF-8.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Final, Literal, Protocol, TypeAlias, TypeVar

import msgspec

T = TypeVar("T")
Value: TypeAlias = str | int | float | bytes | None
Outcome: TypeAlias = Literal["", "done", "skipped", "expired", "failed", "shed"]
EffectState: TypeAlias = Literal["reserved", "done", "failed", "unknown"]
Verdict: TypeAlias = Literal["written", "twin", "fenced"] | Exception
Write: TypeAlias = Callable[["Tx"], object]

BRIDGE: Final = "bridge"
"""The service under which the bridge journals what it shed."""


class Claim(msgspec.Struct, frozen=True, gc=False):
    """A wish to do one effect: `holder` has it to itself until `held_until_ms`.

    `holder` names the delivery, not only the worker: two deliveries that a worker has at the
    same time must not share one effect. `detail` is the request as JSON text, for whoever has
    to ask the venue later.
    """

    key: str
    kind: str
    holder: str
    held_until_ms: int
    detail: str = ""


class Candidate(msgspec.Struct, frozen=True, gc=False):
    """A delivery about to be handled; `replay_count` is its own."""

    service: str
    event_id: str
    replay_count: int = 0
    effect: Claim | None = None


class Effect(msgspec.Struct, frozen=True, gc=False):
    """A row of effects: something done, or about to be done, to the world.

    `first_ms` is when it was first claimed, 0 where an older store did not write that down; `at_ms`
    is when it last changed.
    """

    key: str
    kind: str
    state: EffectState
    holder: str
    held_until_ms: int
    attempts: int
    replay_count: int
    detail: str
    result: str
    error: str
    at_ms: int
    first_ms: int = 0
    mode: str = ""
    """The mode of the agent when it was last tried; "" where nobody said."""


class Standing(msgspec.Struct, frozen=True, gc=False):
    """What the store knows of a candidate before it is handled.

    `seen`: the journalled outcome that counts as seen, or None: handle it.
    `effect`: the claimed effect as it was before this call (as it is now where `fresh`);
    None without a claim or where the candidate is seen.
    `fresh`: this call reserved it, nobody has called the venue before under this reservation.
    `held`: another holder still has it; postpone.
    """

    seen: str | None = None
    effect: Effect | None = None
    fresh: bool = False
    held: bool = False


class KeyState(msgspec.Struct, frozen=True, gc=False):
    """The state a lane keeps for one key (a pair's window); the highest `seq` wins.

    `body` is UTF-8 text, whichever way it is handed over; it is read back as `str`.
    """

    key: str
    seq: int
    body: bytes | str


class EffectResult(msgspec.Struct, frozen=True, gc=False):
    """What is known of an effect now. `release` clears the hold.

    "none" says that there is no effect after all: nothing was done, and its row goes.
    A done effect stays as it is. With a `holder`, anything but done is written only while
    that holder still has the effect. `result` is JSON text. `mode` is written where it is told.
    """

    key: str
    state: EffectState | Literal["none"]
    result: str = ""
    error: str = ""
    release: bool = True
    holder: str = ""
    mode: str = ""


class Settled(msgspec.Struct, frozen=True, gc=False):
    """A delivery that was handled, and all that shall be written with it in one transaction.

    `outcome` "" writes no journal row (a retry, a postponement), only effect and writes.
    `writes` run in a savepoint. `lane` and `epoch` fence it: another epoch, nothing written.
    `started`: a row of starts exists for it; it goes with this, for the worker outlived it.
    """

    service: str
    event_id: str
    outcome: Outcome
    attempt: int
    worker: str
    at_ms: int
    handler: str = ""
    reason: str = ""
    replay_count: int = 0
    age_ms: int = 0
    writes: tuple[Write, ...] = ()
    states: tuple[KeyState, ...] = ()
    effect: EffectResult | None = None
    lane: str = ""
    epoch: int = 0
    started: bool = False


class Lease(msgspec.Struct, frozen=True, gc=False):
    """A right that one holder has until it expires; `epoch` grows when the holder changes."""

    name: str
    holder: str
    epoch: int
    expires_at_ms: int


class Tx(Protocol):
    """What a function handed to the store works with, synchronously, in the owner thread.

    A function given to `Store.run` or as a write of a `Settled` is the only one that runs, in all
    processes: what such functions write does not change under it. The journal, the effects and
    the states of lanes may grow meanwhile on PostgreSQL, where plain commits wait for nobody.
    It may be called again where its transaction could not be kept, so it does nothing else. Who
    goes on after an error of a statement puts that statement in a `savepoint`.
    SQL uses `?` for values and what SQLite and PostgreSQL have in common.
    """

    @property
    def alone(self) -> bool:
        """Whether nobody else writes anything at all meanwhile."""
        ...

    def execute(self, sql: str, params: Sequence[Value] = ()) -> int:
        """Run one writing statement; the number of rows it changed."""
        ...

    def query(self, sql: str, params: Sequence[Value] = ()) -> list[tuple[Any, ...]]:
        """All rows of one reading statement (or of a RETURNING one)."""
        ...

    def bulk(self, columns: Sequence[str], rows: Sequence[Sequence[Value]], sql: str) -> int:
        """Run one writing statement for many rows; the number of rows it changed.

        `sql` reads them from a relation called `rows` with these columns. Values are text,
        numbers or None, no bytes.
        """
        ...

    def lookup(
        self,
        columns: Sequence[str],
        rows: Sequence[Sequence[Value]],
        sql: str,
        answer: Sequence[str],
        keep: str = "",
    ) -> list[list[Any]]:
        """The `answer` columns of one SELECT over the relation `rows`, in no order.

        The rows that it finds in the table `keep` stay as they are until the transaction ends.
        """
        ...

    def savepoint(self) -> AbstractContextManager[None]:
        """What is written inside is undone where the block raises."""
        ...


class Store(Protocol):
    """What must survive a crash.

    Whatever cannot be done for now (disk full, locked, closed) raises StateError, and then
    nothing of it is written. A cancelled caller harms nobody; its work may still be done.
    """

    async def open(self) -> None:
        """Open or create it, with its schema.

        Raises StoreError, in one sentence, where a person must act: no database, a newer
        schema, read-only, locked for long.
        """
        ...

    async def close(self) -> None:
        """Finish what is queued and close; twice is once."""
        ...

    async def run(self, work: Callable[[Tx], T]) -> T:
        """Do `work` in a savepoint of a group transaction; durable when this returns.

        What `work` raises undoes only `work` and is raised here.
        """
        ...

    async def read(self, query: Callable[[Tx], T]) -> T:
        """Do `query` outside of any write transaction; it sees everything committed."""
        ...

    async def admit(self, candidates: Sequence[Candidate], now_ms: int) -> list[Standing]:
        """The standing of each candidate, in order; claims of those not seen are reserved."""
        ...

    async def commit(self, settled: Sequence[Settled]) -> list[Verdict]:
        """Write them all in one transaction; durable when this returns.

        In order, each entry is: written · a twin (a row that counts as seen was there: its
        writes and states are not) · fenced (its lane has another epoch: nothing of it is) · the
        exception that its writes raised (nothing of it is but its effect result). An effect's
        result is a fact and is written unless fenced.
        """
        ...
