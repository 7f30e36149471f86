"""Two writers at once: whoever comes second sees what the first one did, and nothing is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from decimal import Decimal
from typing import Any

import pytest

from fleet.core.errors import SettingsError, StateError
from fleet.store import (
    Candidate,
    Claim,
    EffectResult,
    KeyState,
    Settled,
    Store,
    Tx,
    batch,
    lanes,
    ledger,
    open_store,
    positions,
)
from fleet.store.again import OvertakenError
from fleet.store.positions import Position, Refused, Reserved
from fleet.store.postgres import PostgresEngine

Done = Callable[..., Settled]
WAITS = "SELECT count(*) FROM pg_locks WHERE NOT granted"


async def meanwhile(engine: PostgresEngine, work: Awaitable[Any]) -> Any:
    """The result of `work`, which has to wait for the engine's transaction, which then commits."""
    waiting = asyncio.ensure_future(work)
    async with asyncio.timeout(60):
        while engine.tx.query(WAITS) == [(0,)]:
            assert not waiting.done(), waiting
            await asyncio.sleep(0.01)
    engine.commit()
    return await waiting


def begin(engine: PostgresEngine) -> Tx:
    """A transaction that keeps nobody out by itself."""
    engine.begin(alone=False)
    return engine.tx


async def test_the_next_owner_waits_for_what_is_being_committed(
    store: Store, engine: PostgresEngine, done: Done
):
    """A lane taken amid its old owner's commit comes with the states of that commit."""
    epoch, _ = await store.run(lambda tx: lanes.take(tx, "svc", "0", "old"))
    entry = done("E1", lane="0", epoch=epoch, states=(KeyState("BTC", 1, "one"),))
    assert batch.commit(begin(engine), [entry]) == ["written"]
    taken = await meanwhile(engine, store.run(lambda tx: lanes.take(tx, "svc", "0", "new")))
    assert taken == (epoch + 1, [KeyState("BTC", 1, "one")])


async def test_an_owner_that_is_being_overtaken_is_fenced(
    store: Store, engine: PostgresEngine, done: Done
):
    """A commit that meets a take-over in the making waits for it, and writes nothing."""
    epoch, _ = await store.run(lambda tx: lanes.take(tx, "svc", "0", "old"))
    lanes.take(begin(engine), "svc", "0", "new")
    late = [done("E1", lane="0", epoch=epoch, states=(KeyState("BTC", 1, "one"),))]
    assert await meanwhile(engine, store.commit(late)) == ["fenced"]


@pytest.mark.parametrize("more", [{}, {"started": True}], ids=["plain", "general"])
async def test_one_of_two_twins_is_written(
    store: Store, engine: PostgresEngine, done: Done, more: dict[str, Any]
):
    """The second of two deliveries of one event waits for the first, and is its twin."""
    assert batch.commit(begin(engine), [done("E1")]) == ["written"]
    mine = [done(event_id, **more) for event_id in ("E0", "E1", "E2")]
    assert await meanwhile(engine, store.commit(mine)) == ["written", "twin", "written"]


async def test_one_of_two_claims_is_fresh(store: Store, engine: PostgresEngine):
    """The second claim of one effect waits for the first, and finds it held."""
    wishes = [Candidate("svc", "E1", 0, Claim("key", "trade", who, 9)) for who in "ab"]
    assert batch.admit(begin(engine), wishes[:1], 0)[0].fresh
    standing = (await meanwhile(engine, store.admit(wishes[1:], 0)))[0]
    assert (standing.fresh, standing.held) == (False, True)


class Amid:
    """A transaction amid which, after its first look, something else is committed."""

    alone = False

    def __init__(self, tx: Tx, then: Callable[[], object]) -> None:
        self._tx, self._then = tx, then

    def lookup(self, *arguments: Any) -> list[list[Any]]:
        """Look, and let the other one write after the first look."""
        found = self._tx.lookup(*arguments)
        then, self._then = self._then, lambda: None
        then()
        return found

    def __getattr__(self, name: str) -> Any:
        """Everything else is as it was."""
        return getattr(self._tx, name)


async def test_what_ended_between_two_looks_is_not_begun(
    store: Store, engine: PostgresEngine, postgres_url: str, done: Done
):
    """A skipped event leaves no effect; a claim that saw neither it nor its row is done again."""
    assert store
    other = PostgresEngine(postgres_url, writes=True)
    other.open()
    skipped = done("E1", outcome="skipped", effect=EffectResult("key", "none"))
    amid = Amid(begin(engine), lambda: other.at_once(lambda tx: batch.commit(tx, [skipped])))
    wish = [Candidate("svc", "E1", 0, Claim("key", "trade", "b", 9))]
    with pytest.raises(OvertakenError):
        batch.admit(amid, wish, 0)  # type: ignore[arg-type]  # it is one, by __getattr__
    engine.rollback()
    assert batch.admit(begin(engine), wish, 0)[0].seen == "skipped"
    other.close()


async def test_an_operators_word_does_not_cross_a_claim(store: Store, engine: PostgresEngine):
    """Of an effect that a worker takes at this moment nobody says that it failed."""
    wish = Candidate("svc", "E1", 0, Claim("key", "trade", "a", 500))
    await store.admit([wish], 0)
    await store.admit([Candidate("svc", "E1", 0, Claim("key", "trade", "a", 600))], 0)
    again = Candidate("svc", "E1", 0, Claim("key", "trade", "b", 5_000))
    assert not batch.admit(begin(engine), [again], 1_000)[0].held

    def resolve(tx: Tx) -> object:
        return ledger.resolve(tx, "key", "failed", note="n", operator="o", now_ms=1_000)

    with pytest.raises(SettingsError, match="in the hands of a worker"):
        await meanwhile(engine, store.run(resolve))


async def test_no_interleaving_opens_a_position_too_many(postgres_url: str):
    """Of forty orders at once through four processes' stores exactly three get a place."""
    stores = [open_store(postgres_url) for _ in range(4)]
    await asyncio.gather(*(each.open() for each in stores))

    def order(number: int) -> Callable[[Tx], Reserved | Refused]:
        wish = Position(
            f"k{number}", "a", f"P{number % 9}", "long", Decimal(50), Decimal(3), number
        )
        return lambda tx: positions.reserve(tx, wish, 3)

    answers = await asyncio.gather(*(stores[n % 4].run(order(n)) for n in range(40)))
    assert sum(isinstance(answer, Reserved) for answer in answers) == 3
    await asyncio.gather(*(each.close() for each in stores))


async def test_a_function_that_waits_too_long_says_so(store: Store, engine: PostgresEngine):
    """Who holds everybody else up makes them try again later; nothing is written meanwhile."""
    await store.run(lambda tx: tx.query("SET lock_timeout = '100ms'"))
    engine.begin(alone=True)
    with pytest.raises(StateError, match="lock timeout"):
        await store.run(lambda tx: tx.execute("DELETE FROM journal"))
    engine.rollback()
    await store.run(lambda tx: tx.execute("DELETE FROM journal"))


async def test_many_start_at_once(postgres_url: str):
    """Ten processes that find an empty database make its tables once."""
    stores = [open_store(postgres_url) for _ in range(10)]
    await asyncio.gather(*(each.open() for each in stores))
    versions = "SELECT count(*) FROM schema_version"
    assert await stores[0].read(lambda tx: tx.query(versions)) == [(1,)]
    await asyncio.gather(*(each.close() for each in stores))
