"""The audit on a real broker: what it finds, names and leaves alone."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aio_pika
import pytest
from msgspec import structs

from fleet.amqp.connection import Link
from fleet.amqp.looks import open_looks
from fleet.amqp.publisher import ConfirmedPublisher
from fleet.audit.auditor import Auditor, Findings, Subject
from fleet.audit.ids import unpack
from fleet.core.envelope import event_headers
from fleet.core.events import Event, write_event
from fleet.core.ulid import make_ulid
from fleet.demo.place import lay_out
from fleet.store import Candidate, Claim, EffectResult, Settled, Store, archive, open_store
from fleet.store.archive import Archived
from tests.waiting import until
from topology import names
from topology.model import Lanes, ServiceLayout
from topology.plan import plan

NOW = 1_735_689_600_000
LAYOUT = ServiceLayout("audited", ("wallet.*",), lanes=Lanes(partitions=2), buckets=2)


def ulid(number: int) -> str:
    """The id of a number."""
    return make_ulid(NOW, number.to_bytes(10, "big"))


def journaled(event_type: str) -> str:
    """How the audited service takes a type."""
    return "journaled" if event_type == "market.tick" or event_type.startswith("wallet.") else ""


SUBJECT = Subject(LAYOUT, journaled)  # type: ignore[arg-type]  # a Kind, seen as a str


@pytest.fixture
async def store(store_url: str, amqp_url: str) -> AsyncIterator[Store]:
    """An open store, with the layout applied."""
    opened = open_store(store_url)
    await opened.open()
    await lay_out(plan([LAYOUT]), amqp_url, opened)
    yield opened
    await opened.close()


@pytest.fixture
async def publisher(
    amqp_url: str,
    store: Store,  # noqa: ARG001 - it has the layout applied
) -> AsyncIterator[ConfirmedPublisher]:
    """Publishes as the bridge does."""
    async with Link(amqp_url, "test") as link, ConfirmedPublisher(link) as publisher:
        yield publisher


async def publish(publisher: ConfirmedPublisher, number: int, event_type: str) -> None:
    """Publish the event of a number."""
    payload: dict[str, Any] = {"pair": "BTC/USDT", "price": 1, "timestamp_ms": NOW}
    event = Event(ulid(number), event_type, "agent", payload, NOW)
    headers = event_headers(event)
    if event_type == "market.tick":
        headers["partition"] = 0
    # Thousands may stand in line.
    await publisher.publish(
        names.INGEST, event_type, write_event(event), headers=headers, timeout_s=120
    )


async def look(amqp_url: str, store: Store) -> Findings:
    """One audit."""
    async with Auditor(amqp_url, store, [SUBJECT]) as auditor:
        return await auditor.patient(0.1)


def row(number: int, outcome: Any) -> Settled:
    """The journal row of the event of a number."""
    return Settled("audited", ulid(number), outcome, 1, "worker-1", NOW)


async def test_each_event_is_where_it_is(
    amqp_url: str, store: Store, publisher: ConfirmedPublisher
):
    """Done by its row, waiting in its queue, unrouted where nobody wants it; the sums hold."""
    await publish(publisher, 1, "wallet.low_balance")
    await publish(publisher, 2, "market.tick")
    await publish(publisher, 3, "job.failed")
    await store.commit([row(1, "done")])
    found = await look(amqp_url, store)
    assert found.reckoning.fleet.counts == {"done": 1, "waiting": 1, "unrouted": 1}
    assert (found.reckoning.emitted, found.is_clean) == (3, True)


async def test_a_second_message_of_an_event_counts_once(
    amqp_url: str, store: Store, publisher: ConfirmedPublisher
):
    """A republished event stands in the log twice and is one event."""
    for _ in range(2):
        await publish(publisher, 1, "wallet.low_balance")
    await store.commit([row(1, "done")])
    found = await look(amqp_url, store)
    assert found.reckoning.emitted == 1
    assert found.is_clean


async def test_a_service_that_came_later_is_not_blamed(
    amqp_url: str, store: Store, publisher: ConfirmedPublisher
):
    """Two services, one bound after an event: either is audited alone, and neither has lost it."""
    await publish(publisher, 1, "wallet.low_balance")
    await store.commit([row(1, "done")])
    later = ServiceLayout("later", ("wallet.*",), buckets=2)
    await lay_out(plan([LAYOUT, later]), amqp_url, store)
    both = [SUBJECT, Subject(later, journaled)]  # type: ignore[arg-type]  # as above
    for subjects, counts in ((both, {"done": 1}), (both[1:], {"elsewhere": 1})):
        async with Auditor(amqp_url, store, subjects) as auditor:
            found = await auditor.look()
        assert (found.reckoning.fleet.counts, found.is_clean) == (counts, True)


async def test_a_lost_event_is_named(amqp_url: str, store: Store, publisher: ConfirmedPublisher):
    """Acked by somebody without a journal row, and all queues empty: unaccounted, by its id."""
    await publish(publisher, 1, "wallet.low_balance")
    await publish(publisher, 2, "wallet.low_balance")
    await store.commit([row(1, "done")])
    await purge(amqp_url)
    found = await look(amqp_url, store)
    assert [unpack(event) for event in found.reckoning.unaccounted] == [ulid(2)]
    assert not found.is_clean


async def purge(amqp_url: str) -> None:
    """Lose what is in the work queue, behind the fleet's back."""
    async with await aio_pika.connect(amqp_url) as connection:
        channel = await connection.channel()
        await (await channel.get_queue(names.work_queue("audited"), ensure=False)).purge()


async def test_looking_takes_nothing_away(amqp_url: str, publisher: ConfirmedPublisher):
    """What was browsed is still there, however often."""
    for number in range(1, 51):
        await publish(publisher, number, "job.failed")
    async with open_looks(amqp_url) as looks:
        for _ in range(3):
            seen = await looks.browse(names.UNROUTED)
            ids = [(message.header.properties.headers or {})["x-event-id"] for message in seen]
            assert sorted(ids) == [ulid(number) for number in range(1, 51)]

        async def are_back() -> bool:
            depths = await looks.depths([names.UNROUTED, "pf.nobody"])
            assert "pf.nobody" not in depths
            return depths[names.UNROUTED].ready == 50

        await until(are_back)


async def test_the_log_is_read_to_its_end(
    amqp_url: str, store: Store, publisher: ConfirmedPublisher
):
    """Every one of several thousand; what comes later is read by the next look."""
    await asyncio.gather(*(publish(publisher, n, "job.failed") for n in range(1, 6_002)))
    async with Auditor(amqp_url, store, [SUBJECT]) as auditor:
        assert (await auditor.look()).reckoning.emitted == 6_001
        await publish(publisher, 6_002, "wallet.low_balance")
        assert (await auditor.look()).reckoning.emitted == 6_002


def fleet(amqp_url: str, store_url: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a command as a user does."""
    return subprocess.run(
        [sys.executable, "-m", "fleet", *words],
        cwd=Path(__file__).parent,
        env={**os.environ, "AMQP_URL": amqp_url, "STORE_URL": store_url},
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )


async def test_the_command_names_what_is_lost_and_says_so_by_its_exit_code(
    amqp_url: str, store_url: str, publisher: ConfirmedPublisher
):
    """0 while the event waits in its queue; 1, with the id in --json, once it is gone."""
    await publish(publisher, 1, "wallet.low_balance")
    words = ("audit", "--json", "--handlers", "audited_service:service")
    waiting = fleet(amqp_url, store_url, *words)
    assert waiting.returncode == 0, waiting.stderr
    assert json.loads(waiting.stdout)["waiting"] == 1
    await purge(amqp_url)
    lost = fleet(amqp_url, store_url, *words)
    assert lost.returncode == 1, lost.stderr
    assert json.loads(lost.stdout)["unaccounted"] == [ulid(1)]
    text = fleet(amqp_url, store_url, *words[:1], *words[2:])
    assert f"unaccounted: {ulid(1)}" in text.stdout
    last = text.stdout.splitlines()[-1]
    assert last == "1 event is unaccounted for; nothing was done twice."


async def test_effects_and_the_archive_are_counted(
    amqp_url: str, store: Store, store_url: str, publisher: ConfirmedPublisher
):
    """Effects by kind and state, and what operators resolved by queue: for people and as JSON."""
    await publish(publisher, 1, "wallet.low_balance")
    for number, (kind, state) in enumerate(
        [("order.requested", "done"), ("order.requested", "unknown"), ("payment.due", "done")]
    ):
        claim = Claim(f"k{number}", kind, "w", NOW)
        await store.admit([Candidate("audited", f"e{number}", 0, claim)], NOW)
        effect = EffectResult(f"k{number}", state)  # type: ignore[arg-type]  # of the list above
        await store.commit([Settled("audited", f"e{number}", "", 1, "w", NOW, effect=effect)])
    kept = Archived("resolved", "pf.audited.failed", "m", "d", 0, "t", {}, b"", "known", "ada", NOW)
    gone = structs.replace(kept, message_id="n", restored_ms=NOW)
    edited = structs.replace(kept, kind="edited")
    await store.run(lambda tx: archive.add(tx, [kept, edited, gone]))
    words = ("audit", "--handlers", "audited_service:service")
    found = json.loads(fleet(amqp_url, store_url, *words, "--json").stdout)
    assert found["effects"] == {"done": 2, "unknown": 1}
    assert found["effects_by_kind"] == {
        "order.requested": {"done": 1, "unknown": 1},
        "payment.due": {"done": 1},
    }
    assert found["archived"] == {"pf.audited.failed": 1}
    text = fleet(amqp_url, store_url, *words).stdout
    assert "effects of order.requested: 1 done, 1 unknown" in text
    assert "archived: 1 out of pf.audited.failed" in text


async def test_what_nobody_can_read_is_told_and_is_no_loss(
    amqp_url: str, store: Store, publisher: ConfirmedPublisher
):
    """A stranger's message stands in the log as long as the log does: it is no exit code 1."""
    await publish(publisher, 1, "wallet.low_balance")
    await publisher.publish(names.INGEST, "wallet.low_balance", b"nonsense", headers={})
    await store.commit([row(1, "done")])
    found = await look(amqp_url, store)
    assert (found.unreadable, found.is_clean) == (1, True)
    assert found.reckoning.emitted == 1


def test_a_store_that_is_not_there_is_refused_and_not_made(amqp_url: str, tmp_path: Path):
    """One sentence with the whole path, exit code 2, and no file: neither new nor filled."""
    (tmp_path / "empty.sqlite3").touch()
    for file in (tmp_path / "nobody" / "fleet.sqlite3", tmp_path / "empty.sqlite3"):
        answer = fleet(
            amqp_url, f"sqlite:///{file}", "audit", "--handlers", "audited_service:service"
        )
        assert (answer.returncode, answer.stdout) == (2, "")
        assert f"There is no store at {file};" in answer.stderr
        assert answer.stderr.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["empty.sqlite3"]
    assert (tmp_path / "empty.sqlite3").stat().st_size == 0


async def test_without_the_layout_it_says_what_to_do(amqp_url: str, store_url: str):
    """One sentence and exit code 2."""
    made = open_store(store_url)
    await made.open()
    await made.close()
    answer = fleet(amqp_url, store_url, "audit", "--handlers", "audited_service:service")
    assert answer.returncode == 2
    assert "fleet topology apply" in answer.stderr
    assert "Traceback" not in answer.stderr


async def test_a_service_that_was_never_laid_out_is_not_reckoned(
    amqp_url: str, store_url: str, publisher: ConfirmedPublisher
):
    """`--handlers` forgotten: one sentence that names the services there are, and no accusation."""
    await publish(publisher, 1, "wallet.low_balance")
    ended = await asyncio.to_thread(fleet, amqp_url, store_url, "audit")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "no service trading.agent in this store, known are audited;" in ended.stderr
