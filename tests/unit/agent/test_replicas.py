"""Three replicas, interleaved at every single call: the real executor, book and venue rules.

Nothing here waits or is random: Hypothesis chooses which replica goes on, what the venue does
with a request, and who dies where. What it found wrong it can repeat.
"""

from __future__ import annotations

import random
import sqlite3
from collections import Counter
from collections.abc import Callable, Coroutine, Generator, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from agent.executor import on_order, on_unknown
from agent.guard import Guard
from agent.keys import trade_key
from agent.modes import MODES, NO_WRITES, Standing
from agent.orders import ATTEMPTS
from agent.settings import AgentSettings
from agent.venue import Opened
from agent.wire import ClosedPosition, VenuePosition
from fleet.core.breaker import BreakerPolicy
from fleet.core.decision import Ack, Decision, Expire, Fail, Postpone, Retry
from fleet.core.errors import ApiError, NetworkError, NotNowError, RefusedError
from fleet.core.events import Event
from fleet.core.payloads import OrderRequested
from fleet.core.retry import RetryPolicy
from fleet.core.ulid import make_ulid
from fleet.store import Candidate, Claim, Settled, batch, positions, schema
from fleet.store.positions import Position
from fleet.store.sqlite_tx import SqliteTx
from sandbox.ledger import Ledger
from sandbox.venue import CloseOrder, OpenOrder, Venue
from workers.context import Context, Effecting
from workers.effects import outcome_of

BOOK, LIMIT, DEADLINE_MS, HOLD_MS, QUIET_MS = "pf_agent_x", 3, 37_000, 47_000, 60_000
PAIRS = ("A/USD", "B/USD", "C/USD", "D/USD", "E/USD")
POLICY = RetryPolicy(attempts=ATTEMPTS + 1, base=2.0, cap=30.0)
OUTCOMES = {Ack: "done", Expire: "expired", Fail: "failed"}


@dataclass
class Call:
    """One call of a replica that waits for its turn; `in_weather` goes to the venue."""

    do: Callable[[], Any]
    in_weather: bool = False

    def __await__(self) -> Generator[Call, Any, Any]:
        """Hand the call to whoever decides when it happens."""
        return (yield self)


class Store:
    """The real tables and statements, in memory; each call is one turn."""

    def __init__(self) -> None:
        connection = sqlite3.connect(":memory:", isolation_level=None)
        self.tx = SqliteTx(connection)
        for statement in schema.statements(0, keyed="", serial="INTEGER PRIMARY KEY"):
            self.tx.execute(statement)

    async def run(self, work: Callable[[Any], Any]) -> Any:
        """Do `work` in a transaction of its own."""
        return await Call(lambda: self._transact(work))

    read = run

    def _transact(self, work: Callable[[Any], Any]) -> Any:
        self.tx.query("BEGIN")
        try:
            with self.tx.savepoint():
                return work(self.tx)
        finally:
            self.tx.query("COMMIT")


class Platform:
    """The stand-in's own rules behind the calls of `agent.venue`; each call is one turn."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.ledger = Ledger()
        ids = iter(range(10**9))
        self.rules = Venue(lambda _: Decimal(100), lambda: str(next(ids)), self.ledger)

    async def positions(self) -> tuple[VenuePosition, ...]:
        """What is open."""
        return await Call(self.listed, in_weather=True)

    async def open(self, order: OrderRequested) -> Opened:
        """Open under the order's key."""
        return await Call(lambda: self._open(order), in_weather=True)

    async def close(self, position_id: str, _: Any = None) -> ClosedPosition | None:
        """Close one."""
        return await Call(lambda: self._close(position_id), in_weather=True)

    def listed(self) -> tuple[VenuePosition, ...]:
        """What is open, now."""
        return tuple(_position(body) for body in self.rules.positions())

    def _open(self, order: OrderRequested) -> Opened:
        wish = OpenOrder(order.pair, order.direction, order.size_usdc, order.key, order.leverage)
        answer = self.rules.open(wish, self._world.now_ms)
        if answer.status == 422:
            raise RefusedError(answer.body["error"])
        again = answer.status == 409
        return Opened(_position(answer.body["original"] if again else answer.body), again)

    def _close(self, position_id: str) -> ClosedPosition | None:
        answer = self.rules.close(CloseOrder(position_id), self._world.now_ms)
        if answer.status == 404:
            return None
        body = answer.body["original"] if answer.status == 409 else answer.body
        return ClosedPosition(body["realised_pnl_usdc"], body["exit_price"], position_id)


def _position(body: dict[str, Any]) -> VenuePosition:
    fields = VenuePosition.__struct_fields__
    return VenuePosition(**{name: value for name, value in body.items() if name in fields})


@dataclass
class Delivery:
    """An order on its way, with the attempt that its next delivery is, and when that comes."""

    event: Event
    order: OrderRequested
    attempt: int = 1
    due_ms: int = 0


@dataclass
class Running:
    """A delivery in a replica's hands, at a call."""

    delivery: Delivery
    task: Coroutine[Any, Any, None]
    call: Call | None = None


@dataclass
class World:
    """Everything: the clock, the queue, three replicas, requests that are late."""

    now_ms: int = 1_750_000_000_000
    queue: list[Delivery] = field(default_factory=list)
    replicas: list[Running | None] = field(default_factory=lambda: [None] * 3)
    late: list[tuple[int, Callable[[], Any]]] = field(default_factory=list)
    standing: Standing = field(default_factory=Standing)
    handling: dict[int, int] = field(default_factory=dict)
    failed: set[str] = field(default_factory=set)
    """Pairs of which an order was given up."""
    count: int = 0

    def __post_init__(self) -> None:
        self.store, self.platform = Store(), Platform(self)
        guards = [Guard(self.store, BOOK, BreakerPolicy()) for _ in range(3)]  # type: ignore[arg-type]  # as much of a store as it needs
        self.desks = [self._desk(guard) for guard in guards]

    def _desk(self, guard: Guard) -> Any:
        settings = AgentSettings(agent_id=BOOK, max_positions=LIMIT, order_max_age_s=30)
        return SimpleNamespace(
            agent=BOOK,
            book=BOOK,
            store=self.store,
            venue=self.platform,
            guard=guard,
            settings=settings,
            watch=self,
            mode_text=self.standing.mode,
        )

    def order(self, pair: str, way: Any, minutes_ago: int) -> None:
        """A strategy's order is published."""
        at_ms = self.now_ms - minutes_ago * 60_000
        key = trade_key(BOOK, pair, way, at_ms)
        order = OrderRequested(pair, way, Decimal(50), Decimal(3), at_ms, key)
        self.count += 1
        event_id = make_ulid(self.now_ms, self.count.to_bytes(10, "big"))
        self.queue.append(
            Delivery(Event(event_id, "order.requested", BOOK, {}, self.now_ms), order)
        )

    def start(self, number: int, delivery: Delivery) -> None:
        """A replica is given a delivery."""
        self.queue.remove(delivery)
        running = Running(delivery, self._deliver(number, delivery))
        self.replicas[number] = running
        self._resume(number, running, None, None)

    def go_on(self, number: int, weather: str) -> None:
        """A replica's call happens, or does not, or its answer is lost, or it is late."""
        running = self.replicas[number]
        assert running is not None
        assert running.call is not None
        do, answer = running.call.do, None
        error = self._weather(running.call, weather)
        if error is None or weather == "lost":
            try:
                answer = do()
            except Exception as raised:  # noqa: BLE001 - it belongs to the replica
                error = raised
        self._resume(number, running, answer, error)

    def _weather(self, call: Call, weather: str) -> Exception | None:
        """What the caller hears instead of an answer."""
        if not call.in_weather:
            return None
        if weather == "late":
            self.late.append((self.now_ms, call.do))
        return {
            "error": ApiError("503"),
            "busy": NotNowError("429", retry_after=1.0),
            "late": NetworkError("no answer"),
            "lost": NetworkError("no answer"),
        }.get(weather)

    def die(self, number: int, *, after: bool) -> None:
        """A replica is killed before its call, or after it with the answer unread."""
        running = self.replicas[number]
        assert running is not None
        if after and running.call is not None:
            running.call.do()
        running.task.close()
        self.handling.pop(number, None)
        self.replicas[number] = None
        self.queue.append(running.delivery)

    def arrive(self) -> None:
        """A late request reaches the venue."""
        _, do = self.late.pop(0)
        do()

    def pass_time(self, ms: int) -> None:
        """The clock goes on; no handler outlives its deadline, every request arrives in the end."""
        self.now_ms += ms
        for number, began_ms in list(self.handling.items()):
            if self.now_ms - began_ms >= DEADLINE_MS:
                del self.handling[number]
                running = self.replicas[number]
                assert running is not None
                self._resume(number, running, None, TimeoutError("the deadline"))
        while self.late and self.now_ms - self.late[0][0] >= QUIET_MS:
            self.arrive()

    def _resume(self, number: int, running: Running, answer: Any, error: Exception | None) -> None:
        try:
            task = running.task
            running.call = task.throw(error) if error is not None else task.send(answer)
        except StopIteration:
            self.replicas[number] = None

    async def _deliver(self, number: int, delivery: Delivery) -> None:
        """One delivery as the runtime treats it: claim, handle, commit."""
        event, order = delivery.event, delivery.order
        self.count += 1
        holder = f"w{number}/{self.count}"

        def admit(tx: Any) -> Any:
            claim = Claim(order.key, event.type, holder, self.now_ms + HOLD_MS)
            wish = Candidate("svc", event.event_id, 0, claim)
            return batch.admit(tx, [wish], self.now_ms)[0]

        standing = await self.store.run(admit)
        if standing.seen or (standing.effect.state in ("done", "failed") and not standing.fresh):
            return
        if standing.held:
            self._again(delivery, Postpone(1.0))
            return
        before = None if standing.fresh else standing.effect
        effect, now_ms = Effecting(order.key, before, holder), self.now_ms
        context = Context(
            event, attempt=delivery.attempt, now_ms=now_ms, worker=f"w{number}",
            app=self.desks[number], effect=effect,
        )  # fmt: skip
        self.handling[number] = now_ms
        decision = await self._decide(context, order)
        self.handling.pop(number, None)
        entry = Settled(
            "svc", event.event_id, OUTCOMES.get(type(decision), ""), delivery.attempt, "w", now_ms,
            writes=tuple(context.writes) if isinstance(decision, Ack) else (),
            effect=outcome_of(effect, decision),
        )  # fmt: skip
        await self.store.run(lambda tx: batch.commit(tx, [entry]))
        self._again(delivery, decision)

    async def _decide(self, context: Context, order: OrderRequested) -> Decision:
        try:
            if context.effecting.before is not None:
                known = await on_unknown(context, order)
                if known is not None:
                    return known
                context.effecting.before = None
            return await on_order(context, order)
        except Exception as error:  # noqa: BLE001 - as the runtime does
            if context.effecting.before is None and isinstance(error, RefusedError | NotNowError):
                context.effecting.not_done()
            age = (context.now_ms - context.event.ts) / 1000
            uniform = random.Random(0).uniform  # noqa: S311 - a delay
            return POLICY.decide(error, attempt=context.attempt, age=age, uniform=uniform)

    def _again(self, delivery: Delivery, decision: Decision) -> None:
        if isinstance(decision, Retry | Postpone):
            delivery.attempt += isinstance(decision, Retry)
            delivery.due_ms = self.now_ms + int(decision.delay * 1000)
            self.queue.append(delivery)
        elif isinstance(decision, Fail):
            self.failed.add(delivery.order.pair)


WEATHER = ("", "", "", "", "", "", "error", "lost", "late", "late", "busy", "dies", "died")
"""What becomes of a call; "dies": its replica before it, "died": after it."""


class Replicas(RuleBasedStateMachine):
    """Any interleaving, in any weather."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.clock = patch("fleet.clock.now_ms", lambda: self.world.now_ms)
        self.clock.start()

    @rule(
        pairs=st.lists(st.sampled_from(PAIRS), min_size=1, max_size=5),
        way=st.sampled_from(["long", "short"]),
        minutes_ago=st.integers(0, 1),
    )
    def order(self, pairs: list[str], way: str, minutes_ago: int) -> None:
        """Orders; a pair twice is the same order from twin owners of its lane."""
        for pair in pairs:
            self.world.order(pair, way, minutes_ago)

    @precondition(lambda self: self._due() and None in self.world.replicas)
    @rule(data=st.data())
    def start(self, data: st.DataObject) -> None:
        """Each free replica takes any delivery that is due."""
        while self._due() and None in self.world.replicas:
            free = self.world.replicas.index(None)
            self.world.start(free, data.draw(st.sampled_from(self._due())))

    @precondition(lambda self: any(self.world.replicas))
    @rule(turns=st.lists(st.tuples(st.integers(0, 2), st.sampled_from(WEATHER)), max_size=12))
    def go_on(self, turns: list[tuple[int, str]]) -> None:
        """Replicas make their next calls, in any order."""
        for number, weather in turns:
            if self.world.replicas[number] is None:
                continue
            if weather in ("dies", "died"):
                self.world.die(number, after=weather == "died")
            else:
                self.world.go_on(number, weather)
            self.stays_within_its_limits()

    @precondition(lambda self: self.world.late)
    @rule()
    def arrive(self) -> None:
        """A request that nobody waits for any more is carried out."""
        self.world.arrive()

    @rule(
        ms=st.sampled_from([100, 2_000, 30_000, 70_000]),
        mode=st.sampled_from(["full"] * 8 + list(MODES)),
    )
    def time_passes(self, ms: int, mode: Any) -> None:
        """The clock goes on, the mode may change, whoever is in the middle of what."""
        self.world.pass_time(ms)
        self.world.standing = Standing(mode, NO_WRITES if mode == "read_only" else "so")

    @invariant()
    def stays_within_its_limits(self) -> None:
        """Never a fourth position, never two of a pair, no key twice: the venue is the witness."""
        held = self.world.platform.listed()
        assert len(held) <= LIMIT
        assert max(Counter(one.pair for one in held).values(), default=0) <= 1
        assert self.world.platform.ledger.summary()["keys_executed_twice"] == 0

    @rule()
    def calm(self) -> None:
        """For a while nothing goes wrong."""
        for _ in range(60):
            for number in self._busy():
                self.world.go_on(number, "")
                self.stays_within_its_limits()
            while self._due() and None in self.world.replicas:
                self.world.start(self.world.replicas.index(None), self._due()[0])

    def teardown(self) -> None:
        """In calm weather all comes to its end."""
        try:
            self._ends_well()
        finally:
            self.clock.stop()

    def _ends_well(self) -> None:
        """Book and venue agree, nothing is left undecided."""
        self._settle()
        # An order that was given up may leave a closing behind: the pair's next order finishes it.
        closing = {one.pair for one in self._book() if one.state == "closing"}
        assert closing <= self.world.failed
        for pair in sorted(closing):
            self.world.order(pair, "long", 0)
        self._settle()
        listed = self.world.platform.listed()
        assert {one.state for one in self._book()} <= {"open"}
        assert {one.venue_id for one in self._book()} == {one.position_id for one in listed}

    def _settle(self) -> None:
        self.time_passes(100, "full")
        for _ in range(40):
            self.calm()
            self.time_passes(10_000, "full")
        assert not self.world.queue

    def _book(self) -> Sequence[Position]:
        return positions.open_positions(self.world.store.tx, BOOK)

    def _due(self) -> list[Delivery]:
        return [one for one in self.world.queue if one.due_ms <= self.world.now_ms]

    def _busy(self) -> list[int]:
        return [number for number, one in enumerate(self.world.replicas) if one is not None]


Replicas.TestCase.settings = settings(
    max_examples=80,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
TestReplicas = Replicas.TestCase
