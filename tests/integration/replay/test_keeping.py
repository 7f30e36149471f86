"""What leaves the queue for good has an archive row first, and can come back."""

from __future__ import annotations

import asyncio
import io
import json
from typing import Any

import pytest

from fleet.audit.auditor import Auditor, Subject
from fleet.core.envelope import event_headers
from fleet.core.errors import SettingsError
from fleet.core.events import write_event
from fleet.core.signature import Key, Keys
from fleet.store import archive
from replay import keeping
from replay.selection import Selection
from topology import names

ORDER = {"pair": "A/USD", "direction": "long", "leverage": 1, "timestamp_ms": 1, "key": "k1"}


async def restore(shop: Any, *ids: str) -> list[str]:
    """Bring these back."""
    async with shop.publisher() as publisher:
        restored: list[str] = await keeping.restore(shop.place(), publisher, ids, "again")
        return restored


async def test_resolve_archives_and_restore_brings_back(shop: Any):
    """A resolved message is in the archive with its note, and comes back as it was."""
    ids = await shop.park([shop.event("wallet.low_balance", {"n": n}) for n in range(4)])
    before = await shop.entries()
    assert await keeping.resolve(shop.place(), Selection(ids=(ids[1],)), "known") == [ids[1]]
    assert [entry.id for entry in await shop.entries()] == [ids[0], ids[2], ids[3]]
    (kept,) = await shop.store.read(archive.find)
    assert (kept.message_id, kept.note, kept.operator) == (ids[1], "known", "ada")
    assert await restore(shop, ids[1]) == [ids[1]]
    assert await restore(shop, ids[1]) == []
    assert before[1] in await shop.entries()
    done = await shop.store.read(lambda tx: archive.interventions(tx, ids[1]))
    assert [each.action for each in done] == ["restore", "resolve"]
    assert (await shop.run(await shop.plan())).sent == 4


async def test_a_resolve_that_is_killed_before_its_ack_is_one_row(
    shop: Any, monkeypatch: pytest.MonkeyPatch
):
    """Archived twice is archived once; the message never is in neither place."""
    (name,) = await shop.park([shop.event("wallet.low_balance")])
    with monkeypatch.context() as patch:
        patch.setattr("fleet.amqp.harvest.Harvest.ack", lambda *_: None)
        await keeping.resolve(shop.place(), Selection(), "first")
    assert [entry.id for entry in await shop.entries()] == [name]
    await keeping.resolve(shop.place(), Selection(), "second")
    assert await shop.entries() == []
    assert [kept.note for kept in await shop.store.read(archive.find)] == ["second"]


async def test_what_is_resolved_is_accounted_for(shop: Any):
    """The audit knows a resolved message that the broker had parked as failed."""
    event = shop.event("wallet.low_balance", {"balance_usdc": 1, "threshold_usdc": 1})
    async with shop.publisher() as publisher:
        headers = {"x-event-id": event.event_id}
        await publisher.publish(names.INGEST, event.type, write_event(event), headers=headers)
    (held,) = await shop.take_all(shop.work)
    await shop.take_all(names.work_queue("test.sibling"))
    await shop.take_all(names.work_queue("test.small"))
    async with shop.publisher() as publisher:
        await publisher.publish(names.DLX, shop.queue, held.body, headers=dict(held.headers))
    await keeping.resolve(shop.place(), Selection(), "known")
    subject = Subject(shop.service.layout(), lambda _: "journaled")
    async with Auditor(shop.url, shop.store, [subject]) as auditor:
        findings = await auditor.patient(0.1)
    assert findings.reckoning.unaccounted == []
    assert findings.reckoning.fleet.counts["failed"] == 1


async def test_an_export_can_be_imported_once(shop: Any):
    """An export takes nothing; an import adds what is not there, and nothing twice."""
    await shop.park([shop.event("wallet.low_balance"), b"\xff not text"])
    before, lines = await shop.entries(), list[bytes]()
    assert await keeping.export(shop.place(), Selection(), lines.append) == 2
    assert await shop.entries() == before
    await shop.take_all(shop.queue)
    async with shop.publisher() as publisher:
        for expected in ((2, 0), (0, 2)):
            source = io.BytesIO(b"".join(lines))
            assert await keeping.bring_in(shop.place(), publisher, source) == expected
        with pytest.raises(SettingsError, match="Line 1"):
            await keeping.bring_in(shop.place(), publisher, io.BytesIO(b'{"queue": 1}\n'))
        changed = json.loads(lines[0]) | {"text": "{}"}
        with pytest.raises(SettingsError, match="digest"):
            await keeping.bring_in(
                shop.place(), publisher, io.BytesIO(json.dumps(changed).encode())
            )
    assert await shop.entries() == before


async def test_an_edit_keeps_the_event_and_its_effect(shop: Any, wait: Any):
    """A too large order is mended and carried out once; who, why and from what is kept."""
    order = shop.event("order.requested", {**ORDER, "size_usdc": 80})
    async with shop.publisher() as publisher:
        await publisher.publish(names.INGEST, order.type, write_event(order))
    async with shop.working():
        await wait(lambda: shop.depth(shop.queue))
        how = ("--id", order.event_id, "--yes", "--json", "--by", "ada")
        setting = ("--set", "payload.size_usdc=10")
        refused = await shop.cli("run", *how, *setting, code=2)
        assert "--note" in refused
        other = ("--set", "payload.key=k2", *setting, "--note", "x")
        assert "effect key" in await shop.cli("run", *how, *other, code=2)
        await shop.counted(shop.queue, 1)
        report = await shop.cli("run", *how, *setting, "--note", "over the limit")
        assert report["sent"] == 1
        await wait(lambda: shop.world() == ["k1"])
    (kept,) = await shop.store.read(lambda tx: archive.find(tx, kind="edited"))
    assert json.loads(kept.body)["payload"]["size_usdc"] == 80
    (done,) = await shop.store.read(lambda tx: archive.interventions(tx, order.event_id))
    assert (done.action, done.operator, done.note) == ("edit", "ada", "over the limit")
    assert done.before == kept.digest != done.after
    assert (await shop.journal())[order.event_id] == "done"


async def test_a_replay_keeps_the_signature_and_an_edit_needs_the_key(shop: Any, wait: Any):
    """Workers believe what is sent home; who has no key cannot edit what was signed."""
    key = "2026:" + "n" * 32
    keys = Keys(Key.read(key))
    orders = [shop.event("order.requested", {**ORDER, "size_usdc": 80, "key": k}) for k in "ab"]
    wallet = shop.event("wallet.low_balance")
    (shop.folder / "broken").touch()
    async with shop.working(signing_key=key), shop.publisher() as publisher:
        for event in (*orders, wallet):
            body = write_event(event)
            headers = keys.stamped(event_headers(event), body)
            await publisher.publish(names.INGEST, event.type, body, headers=headers)
        await wait(lambda: _has(shop, 3))
        (shop.folder / "broken").unlink()
        assert (await shop.cli("run", "--id", wallet.event_id, "--yes", "--json"))["sent"] == 1
        setting = ("--set", "payload.size_usdc=10", "--note", "x", "--yes", "--json")
        first, second = ((*setting, "--id", order.event_id) for order in orders)
        without = await shop.cli("run", *first, code=1)
        assert "SIGNING_KEY" in str(without)
        assert (await shop.cli("run", *second, SIGNING_KEY=key))["sent"] == 1
        await wait(lambda: sorted(shop.world()) == sorted([wallet.event_id, "b"]))
    assert [each.id for each in await shop.entries()] == [orders[0].event_id]


async def _has(shop: Any, count: int) -> bool:
    return bool(await shop.depth(shop.queue) == count)


async def test_an_editor_mends_one_message(shop: Any):
    """What is saved is sent in the place of the old body; left as it was, nothing is sent."""
    order = shop.event("order.requested", {**ORDER, "size_usdc": 80})
    await shop.park([order])
    how = ("--id", order.event_id, "--edit", "--note", "over the limit", "--yes", "--json")
    left = await shop.cli("run", *how, code=2, EDITOR="true")
    assert "without saving" in left
    spoilt = await shop.cli("run", *how, code=2, EDITOR="sed -i s/requested/required/")
    assert "nothing is sent" in spoilt
    report = await shop.cli("run", *how, EDITOR="sed -i s/:80/:20/")
    assert report["sent"] == 1
    (held,) = await shop.take_all(shop.work)
    assert json.loads(held.body) == json.loads(write_event(order).replace(b":80", b":20"))
    assert held.headers["x-edited-from"]


async def test_what_nobody_wanted_can_be_archived_and_restored(shop: Any):
    """It comes back knowing where it was published, though its way back is a fanout."""
    event = shop.event("escrow.released", {"escrow_id": "e", "amount_usdc": 1})
    async with shop.publisher() as publisher:
        await publisher.publish(names.INGEST, event.type, write_event(event))
    (before,) = await shop.entries(names.UNROUTED)
    place = shop.place(names.UNROUTED)
    assert await keeping.resolve(place, Selection(), "known") == [event.event_id]
    assert await shop.entries(names.UNROUTED) == []
    subject = Subject(shop.service.layout(), lambda _: "")
    async with Auditor(shop.url, shop.store, [subject]) as auditor:
        findings = await auditor.patient(0.1)
    assert findings.reckoning.unaccounted == []
    async with shop.publisher() as publisher:
        assert await keeping.restore(place, publisher, [event.event_id], "") == [event.event_id]
    assert await shop.entries(names.UNROUTED) == [before]


@pytest.mark.parametrize("reason", ["rejected", "expired"])
async def test_what_the_broker_parked_is_understood(shop: Any, reason: str, wait: Any):
    """Dead-lettered by the broker: classed by the queue it failed in, and replayed with that."""
    event = shop.event("wallet.low_balance")
    bucket = names.retry(shop.service.name, 0)
    async with shop.publisher() as publisher:
        # Through a bucket first, as a retried message comes: its first x-death entry is that.
        await publisher.publish(names.REDELIVER, bucket, write_event(event), expiration_ms=1)
        await wait(lambda: shop.depth(shop.work))
    await shop.dead_letter(reason)
    await wait(lambda: shop.depth(shop.queue))
    (entry,) = await shop.entries()
    kinds = {"rejected": ("data", "LeftToTheBroker"), "expired": ("resource", "ExpiredInQueue")}
    assert (entry.error_class, entry.error_type) == kinds[reason]
    assert (entry.by, entry.home, entry.id) == ("broker", shop.work, event.event_id)
    await keeping.resolve(shop.place(), Selection(), "look")
    await restore(shop, event.event_id)
    (again,) = await shop.entries()
    assert (again.error_type, again.home) == (entry.error_type, shop.work)
    assert (await shop.run(await shop.plan())).sent == 1
    await shop.counted(shop.work, 1)


async def test_a_canary_stops_where_they_fail_again(shop: Any):
    """One is sent, fails again, and the other 29 stay; mended, all of them go in steps."""
    (shop.folder / "broken").touch()
    ids = await shop.park([shop.event("wallet.low_balance") for _ in range(30)])
    how = ("--canary", "--yes", "--json")
    async with shop.working():
        stopped = await shop.cli("run", *how, code=1)
        assert stopped["sent"] == 1
        assert "step 1: 1 of 1 failed again" in stopped["stopped"]
        (shop.folder / "broken").unlink()
        went = await shop.cli("run", *how)
        assert (went["sent"], went["stopped"]) == (30, "")
    assert sorted(shop.world()) == sorted(ids)


async def test_a_canary_without_a_worker_stops(shop: Any):
    """No outcome is no success."""
    await shop.park([shop.event("wallet.low_balance") for _ in range(3)])
    stopped = await shop.cli("run", "--canary", "--canary-wait", "0.3", "--yes", "--json", code=1)
    assert stopped["sent"] == 1
    await shop.counted(shop.queue, 2)
    assert "no outcome" in stopped["stopped"]


async def test_a_look_of_the_management_ui_costs_nothing(
    shop: Any, management: Any, vhost: str, wait: Any
):
    """Thirty looks through the management API, and the message is still there."""
    (name,) = await shop.park([shop.event("wallet.low_balance")])
    look = {"count": 10, "ackmode": "reject_requeue_true", "encoding": "auto"}
    for _ in range(30):
        path = f"queues/{vhost}/{shop.queue}/get"
        answer = await asyncio.to_thread(management.call, "POST", path, look)
        assert len(answer) <= 1
    await wait(lambda: shop.depth(shop.queue))
    assert [entry.id for entry in await shop.entries()] == [name]
