"""Effects: one holder at a time, and nothing done is done again."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from fleet.store import (
    Candidate,
    Claim,
    Effect,
    EffectResult,
    Settled,
    Standing,
    Store,
    effects,
    ledger,
)
from fleet.store.api import EffectState

Done = Callable[..., Settled]
NOW = 1_000
TERM = 500


async def claim(
    store: Store, holder: str, *, now: int = NOW, event_id: str = "E1", replay_count: int = 0
) -> Standing:
    """The standing of a delivery that claims the key."""
    wish = Claim("key", "trade", holder, now + TERM, '{"size":"50"}')
    return (await store.admit([Candidate("svc", event_id, replay_count, wish)], now))[0]


async def effect(store: Store) -> Effect:
    """The row of the key."""
    found = await store.read(lambda tx: effects.get(tx, "key"))
    assert found is not None
    return found


async def test_the_first_claim_reserves(store: Store) -> None:
    """Nobody had it: it is fresh, held, and its request is kept for whoever asks the venue."""
    standing = await claim(store, "a")
    assert standing.fresh
    assert not standing.held
    assert standing.effect == await effect(store)
    assert standing.effect.detail == '{"size":"50"}'


async def test_another_holder_waits_for_the_term(store: Store) -> None:
    """Held means postpone; once the term is over it is taken over, but not as fresh."""
    await claim(store, "a")
    held = await claim(store, "b")
    assert (held.held, held.fresh) == (True, False)
    taken = await claim(store, "b", now=NOW + TERM)
    assert (taken.held, taken.fresh) == (False, False)
    assert taken.effect is not None
    assert taken.effect.holder == "a"
    assert (await effect(store)).holder == "b"
    assert (await effect(store)).attempts == 2


async def test_two_deliveries_of_a_batch_do_not_share_an_effect(store: Store) -> None:
    """The second claim of one key in a batch is held by the first."""
    wishes = [Candidate("svc", f"E{n}", 0, Claim("key", "trade", f"h{n}", 9)) for n in (1, 2)]
    first, second = await store.admit(wishes, 0)
    assert (first.fresh, second.fresh, second.held) == (True, False, True)


async def test_the_first_claim_s_time_is_kept(store: Store, done: Done) -> None:
    """However often it is claimed and settled, when it was first and last touched is known."""
    await claim(store, "a")
    unknown = EffectResult("key", "unknown")
    await store.commit([done("E1", outcome="", at_ms=NOW + 1, effect=unknown)])
    await claim(store, "b", now=NOW + 2)
    await store.commit([done("E1", at_ms=NOW + 3, effect=EffectResult("key", "done"))])
    row = await effect(store)
    assert (row.first_ms, row.at_ms, row.attempts) == (NOW, NOW + 3, 2)


async def test_an_operator_s_word_holds_until_a_worker_s(store: Store, done: Done) -> None:
    """Pending until somebody says what became of it; claimed again, it is pending again."""

    async def account() -> ledger.Account:
        (found,) = await store.read(ledger.page)
        return found

    await claim(store, "a")
    await store.commit([done("E1", outcome="failed", effect=EffectResult("key", "unknown"))])
    assert ((await account()).resolved, (await account()).is_pending) == (None, True)
    said = {"note": "not listed", "operator": "ada", "now_ms": NOW + 10}
    await store.run(lambda tx: ledger.resolve(tx, "key", "failed", **said))  # type: ignore[arg-type]
    word = (await account()).resolved
    assert word is not None
    assert (word.note, word.operator, (await account()).is_pending) == ("not listed", "ada", False)
    assert (await claim(store, "b", now=NOW + 20, replay_count=1)).fresh
    assert ((await account()).resolved, (await account()).is_pending) == (None, True)
    await store.commit([done("E2", at_ms=NOW + 30, effect=EffectResult("key", "done"))])
    assert (await account()).is_pending is False


async def test_unknown_is_told_to_the_next_holder(store: Store, done: Done) -> None:
    """Who takes over an effect of unknown end sees that, and asks the venue first."""
    await claim(store, "a")
    await store.commit([done("E1", outcome="", effect=EffectResult("key", "unknown"))])
    standing = await claim(store, "b")
    assert not standing.fresh
    assert standing.effect is not None
    assert standing.effect.state == "unknown"


async def test_done_is_done_for_ever(store: Store, done: Done) -> None:
    """A done effect is handed out with its result and changed by nobody."""
    await claim(store, "a")
    finished = EffectResult("key", "done", '{"position_id":"p1"}')
    await store.commit([done("E1", effect=finished)])
    for late in ("failed", "unknown", "reserved"):
        await store.commit([done("E2", outcome="", effect=EffectResult("key", late))])
    standing = await claim(store, "b", event_id="E3", replay_count=5)
    assert (standing.fresh, standing.held) == (False, False)
    assert standing.effect is not None
    assert (standing.effect.state, standing.effect.result) == ("done", '{"position_id":"p1"}')


async def test_an_effect_that_was_none_can_be_claimed_afresh(store: Store, done: Done) -> None:
    """What was skipped leaves no row behind, unless it is done or another holder has it."""
    await claim(store, "a")
    for holder in ("b", "a"):
        none = EffectResult("key", "none", holder=holder)
        await store.commit([done(f"E-{holder}", effect=none)])
        row = await store.read(lambda tx: effects.get(tx, "key"))
        assert (row is None) == (holder == "a")
    assert (await claim(store, "c")).fresh
    await store.commit([done("E-c", effect=EffectResult("key", "done", holder="c"))])
    await store.commit([done("E-d", effect=EffectResult("key", "none"))])
    assert (await effect(store)).state == "done"


async def test_a_replay_reserves_a_failed_effect_again(store: Store, done: Done) -> None:
    """Failed stays failed for its own delivery, and is fresh for one of a later replay."""
    await claim(store, "a")
    await store.commit([done("E1", outcome="", effect=EffectResult("key", "failed", error="no"))])
    same = await claim(store, "b")
    assert same.effect is not None
    assert (same.effect.state, same.effect.error, same.fresh) == ("failed", "no", False)
    again = await claim(store, "b", replay_count=1)
    assert again.fresh
    assert (await effect(store)).state == "reserved"


@pytest.mark.parametrize(("state", "kept"), [("failed", "reserved"), ("done", "done")])
async def test_a_holder_that_was_overtaken_only_tells_facts(
    store: Store, done: Done, state: EffectState, kept: str
) -> None:
    """Its done counts; its failed does not, as the new holder may have done it meanwhile."""
    await claim(store, "a")
    await claim(store, "b", now=NOW + TERM)
    late = EffectResult("key", state, holder="a")
    await store.commit([done("E1", outcome="", effect=late)])
    assert (await effect(store)).state == kept


async def test_what_is_seen_claims_nothing(store: Store, done: Done) -> None:
    """A second delivery of a done event reserves no effect."""
    await store.commit([done("E1")])
    standing = await claim(store, "a")
    assert (standing.seen, standing.effect) == ("done", None)
    assert await store.read(lambda tx: effects.get(tx, "key")) is None


async def test_a_result_outlives_failing_writes(store: Store, done: Done) -> None:
    """What the venue answered is kept even where the handler's own writes fail."""
    await claim(store, "a")
    finished = EffectResult("key", "done", "{}")
    verdicts = await store.commit([done("E1", effect=finished, writes=(lambda _: 1 / 0,))])
    assert isinstance(verdicts[0], ZeroDivisionError)
    assert (await effect(store)).state == "done"
    assert (await store.admit([Candidate("svc", "E1")], NOW))[0].seen is None


async def test_two_stores_reserve_once(store: Store, other: Store) -> None:
    """Of two processes that claim at once one is fresh and the other finds it held."""
    both = [await claim(store, "a"), await claim(other, "b")]
    assert [standing.fresh for standing in both] == [True, False]
    assert [standing.held for standing in both] == [False, True]
