"""The book beside the venue: repaired where it is safe, told where it is not."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec
import pytest

from agent.wire import VenuePosition
from agent.world.reconcile import QUIET_MS, STUCK_MS, Found, compare
from fleet.core.decision import Ack
from fleet.core.events import Event
from fleet.core.ulid import make_ulid
from fleet.store import facts, positions
from fleet.store.positions import Position

AGENT, BTC = "pf_agent_sandbox", "BTC/USDT"
NOW = 1_800_000_000_000
OPEN = Position(
    key="k1",
    agent=AGENT,
    pair=BTC,
    direction="long",
    size=Decimal(50),
    leverage=Decimal(3),
    ts_ms=NOW - STUCK_MS,
    state="open",
    venue_id="pos_1",
    opened_ms=NOW - STUCK_MS,
)
CLOSING = msgspec.structs.replace(OPEN, state="closing", closing_ms=NOW - STUCK_MS + 1)
RESERVED = msgspec.structs.replace(OPEN, state="reserved", venue_id="")
LISTED = VenuePosition("pos_1", BTC, "long", opened_at_ms=NOW - STUCK_MS, idempotency_key="k1")


def changed(one: Any, **fields: Any) -> Any:
    """The same, but for these fields."""
    return msgspec.structs.replace(one, **fields)


def test_what_agrees_is_left_alone():
    """Both have it, or both have nothing."""
    assert compare([OPEN], [LISTED], [OPEN], NOW) == Found()
    assert compare([], [], [], NOW) == Found()


@pytest.mark.parametrize(
    ("before", "listed", "after"),
    [
        ([OPEN], [], []),
        ([], [LISTED], [OPEN]),
        ([OPEN], [], [changed(OPEN, state="closing")]),
        ([CLOSING], [], [CLOSING]),
        ([CLOSING], [LISTED], [CLOSING]),
        ([changed(OPEN, opened_ms=NOW - QUIET_MS + 1)], [], [changed(OPEN, opened_ms=NOW)]),
        ([], [changed(LISTED, opened_at_ms=NOW - QUIET_MS + 1)], []),
        ([changed(RESERVED, opened_ms=NOW - STUCK_MS + 1)], [LISTED], [RESERVED]),
    ],
)
def test_what_is_being_traded_is_left_alone(before: Any, listed: Any, after: Any):
    """Whatever changes under the look, or did within the last minute, is in somebody's hands."""
    assert compare(before, listed, after, NOW) == Found()


def test_what_the_venue_has_no_more_is_gone():
    """It was closed or liquidated there; also where a closing of ours was refused long ago."""
    assert compare([OPEN], [], [OPEN], NOW) == Found(gone=(OPEN,))
    dead = changed(CLOSING, closing_ms=NOW - STUCK_MS)
    assert compare([dead], [], [dead], NOW) == Found(gone=(dead,))


def test_what_was_opened_without_our_hearing_has_come():
    """A place that waits for long, and its key is at the venue."""
    assert compare([RESERVED], [LISTED], [RESERVED], NOW) == Found(came=((RESERVED, LISTED),))


@pytest.mark.parametrize(
    ("book", "listed", "words"),
    [
        ([], [LISTED], "the book has no such position"),
        ([RESERVED], [], "replay its order"),
        ([OPEN], [changed(LISTED, direction="short")], "at the venue"),
        ([changed(CLOSING, closing_ms=0)], [LISTED], "fleet effects close k1"),
    ],
)
def test_what_nobody_can_repair_is_told(book: Any, listed: Any, words: str):
    """In words, and nothing is changed."""
    found = compare(book, listed, book, NOW)
    ((_, sentence),) = found.told
    assert words in sentence
    assert found == Found(told=found.told)


def fired(kind: str, now: int) -> Event:
    """What the clock publishes."""
    payload = {"schedule": kind, "due_ms": now}
    return Event(make_ulid(now, b"0123456789"), kind, AGENT, payload, now)


async def test_the_book_is_repaired_after_the_venue(office: Any) -> None:
    """Closed behind our back: the place is free again, a person is told once, then all agree."""
    place = await office()
    event = place.wish(BTC, "long")
    await place.run(event)
    (made,) = await place.desk.venue.positions()
    await place.desk.venue.close(made.position_id)
    later = place.now + QUIET_MS + 5_000
    assert await place.run(fired("clock.reconcile", later), at=later) == Ack()
    closing, alert = place.runner.emitted
    assert (alert.type, alert.payload["name"]) == ("alert.raised", "book_repaired")
    assert await place.run(closing) == Ack()
    assert await place.book() == {}
    assert (await place.place(event)).pnl == Decimal(0), "what it lost there counts in the drawdown"
    assert place.done() == {"open": 1, "close": 1}
    again = await place.run(fired("clock.reconcile", later + 1), at=later + 1)
    assert again == Ack(skipped="the book and the venue agree")


async def test_a_list_that_is_wrong_leaves_nothing_open_that_the_book_forgets(
    office: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The venue says that nothing is open, and it is: a place is free only once it is closed."""
    place = await office()
    await place.trade(BTC, "long")

    async def nothing() -> tuple[VenuePosition, ...]:
        return ()

    later = place.now + QUIET_MS + 5_000
    with monkeypatch.context() as patch:
        patch.setattr(place.desk.venue, "positions", nothing)
        await place.run(fired("clock.reconcile", later), at=later)
    assert await place.book() == {BTC: ("long", "open")}
    assert await place.run(place.runner.emitted[0]) == Ack()
    assert (await place.book(), await place.venue()) == ({}, {})


async def test_a_stranger_at_the_venue_is_told_of(office: Any) -> None:
    """A position that the book never had: an alert, and it stays where it is."""
    place = await office()
    await place.desk.venue.open(place.order(BTC, "long", place.now))
    later = place.now + QUIET_MS + 5_000
    await place.run(fired("clock.reconcile", later), at=later)
    (alert,) = place.runner.emitted
    assert alert.payload["name"] == "book_differs"
    assert len(await place.desk.venue.positions()) == 1
    assert not await place.desk.store.read(lambda tx: positions.open_positions(tx, AGENT))


async def test_health_is_written_down_and_trouble_told(office: Any) -> None:
    """The venue answers: how fast; it does not: an alert. Either way there is a report."""
    place = await office()

    async def report() -> Any:
        fact = await place.desk.store.read(lambda tx: facts.get(tx, f"health/{AGENT}"))
        return msgspec.json.decode(fact.value)

    await place.run(fired("clock.health", place.now), at=place.now)
    assert place.runner.emitted == []
    assert (await report())["venue_s"] >= 0
    await place.sandbox.stop()
    await place.run(fired("clock.health", place.now + 1), at=place.now + 1)
    assert [one.payload["name"] for one in place.runner.emitted] == ["venue_away"]
    assert (await report())["venue_s"] == -1
