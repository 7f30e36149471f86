"""The book: never one position too many, never two of a pair, whoever asks when."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.core.errors import StateError
from fleet.store import Store, Tx, positions
from fleet.store.positions import Position, Refused, Reserved
from fleet.store.sqlite import SqliteEngine

LIMIT = 3


def order(key: str, pair: str = "BTC", ts_ms: int = 1_000, agent: str = "agent") -> Position:
    """A position to be."""
    return Position(key, agent, pair, "long", Decimal("50.10"), Decimal(3), ts_ms)


def reserve(position: Position) -> Callable[[Tx], Reserved | Refused]:
    """Work that asks for a place in the book."""
    return lambda tx: positions.reserve(tx, position, LIMIT)


async def test_a_position_from_order_to_close(store: Store) -> None:
    """Each step is in the book; money comes back as the decimal that went in."""
    assert await store.run(reserve(order("k"))) == Reserved(order("k"))
    await store.run(lambda tx: positions.opened(tx, "k", "v1", Decimal("60000.010"), 5))
    (held,) = await store.read(lambda tx: positions.open_positions(tx, "agent"))
    assert (held.state, held.venue_id, str(held.entry_price)) == ("open", "v1", "60000.010")
    assert await store.run(lambda tx: positions.closing(tx, "k", 7))
    await store.run(lambda tx: positions.closed(tx, "k", Decimal("-1.5"), Decimal(59_000), 9))
    over = await store.read(lambda tx: positions.get(tx, "k"))
    assert over is not None
    assert (over.state, over.pnl, over.closing_ms, over.closed_ms) == (
        "closed",
        Decimal("-1.5"),
        7,
        9,
    )
    assert await store.read(lambda tx: positions.open_positions(tx, "agent")) == []
    assert await store.run(reserve(order("k"))) == Refused("spent")


async def test_a_redelivered_order_finds_its_own_place(store: Store) -> None:
    """The same key again takes no second place, reserved or open."""
    await store.run(reserve(order("k")))
    assert await store.run(reserve(order("k"))) == Reserved(order("k"), again=True)


async def test_why_an_order_is_refused(store: Store) -> None:
    """A pair that has one, an order older than the pair's newest, a full book."""
    for n, pair in enumerate("ABC"):
        await store.run(reserve(order(f"k{n}", pair)))
    assert await store.run(reserve(order("x", "A"))) == Refused("pair_busy")
    assert await store.run(reserve(order("x", "A", ts_ms=999))) == Refused("late")
    assert await store.run(reserve(order("x", "D"))) == Refused("limit")
    assert isinstance(await store.run(reserve(order("x", "D", agent="other"))), Reserved)


async def test_what_the_venue_refused_frees_its_place(store: Store) -> None:
    """A released key may be reserved again, and holds up no other order of the pair."""
    await store.run(reserve(order("k")))
    await store.run(lambda tx: positions.release(tx, "k"))
    assert await store.run(reserve(order("older", ts_ms=1))) == Reserved(order("older", ts_ms=1))
    await store.run(lambda tx: positions.release(tx, "older"))
    assert await store.run(reserve(order("k"))) == Reserved(order("k"))


async def test_a_key_that_is_not_in_the_book(store: Store) -> None:
    """Opening or closing it says so, and writes nothing."""
    with pytest.raises(StateError, match="no position under k"):
        await store.run(lambda tx: positions.opened(tx, "k", "v", None, 1))


async def test_two_processes_fill_the_book_once(store: Store, other: Store) -> None:
    """Of twenty orders at once through two stores exactly the limit gets a place."""
    orders = [order(f"k{n}", f"P{n % 10}") for n in range(20)]
    stores = itertools.cycle([store, other])
    answers = await asyncio.gather(
        *(one.run(reserve(each)) for one, each in zip(stores, orders, strict=False))
    )
    assert sum(isinstance(answer, Reserved) for answer in answers) == LIMIT
    live = await store.read(lambda tx: positions.open_positions(tx, "agent"))
    assert len({position.pair for position in live}) == LIMIT


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["reserve", "opened", "closing", "closed", "doubted", "release"]),
        st.integers(0, 7),
        st.sampled_from("ABCDE"),
        st.integers(0, 5),
    ),
    max_size=40,
)


def step(tx: Tx, name: str, position: Position) -> None:
    """Do one thing to the book; what is not in it cannot change."""
    if name == "reserve":
        positions.reserve(tx, position, LIMIT)
    elif positions.get(tx, key := position.key) is not None:
        act: dict[str, Callable[[], object]] = {
            "opened": lambda: positions.opened(tx, key, "v", Decimal(1), 1),
            "closing": lambda: positions.closing(tx, key, 1),
            "closed": lambda: positions.closed(tx, key, Decimal(0), None, 1),
            "doubted": lambda: positions.closed_in_doubt(tx, key, Decimal(1), 1),
            "release": lambda: positions.release(tx, key),
        }
        act[name]()


def test_no_order_of_steps_overfills_the_book(tmp_path: Path) -> None:
    """At most three live, one of a pair, and what is closed stays closed - in any interleaving."""
    engine = SqliteEngine(tmp_path / "book.sqlite3")
    engine.open()
    agents = itertools.count()

    @settings(max_examples=60, deadline=None)
    @given(STEPS)
    def holds(steps: list[tuple[str, int, str, int]]) -> None:
        agent = f"agent-{next(agents)}"
        closed: set[str] = set()
        engine.begin(alone=True)
        for name, number, pair, ts_ms in steps:
            key = f"{agent}-{number}"
            step(engine.tx, name, order(key, pair, ts_ms, agent))
            live = positions.open_positions(engine.tx, agent)
            assert len(live) <= LIMIT
            assert len({position.pair for position in live}) == len(live)
            assert not closed & {position.key for position in live}
            found = positions.get(engine.tx, key)
            if found is not None and found.state == "closed":
                closed.add(key)
        engine.rollback()

    holds()
    engine.close()
