"""What a replay would do is told before; an edit keeps the event what it is."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fleet.core.errors import SettingsError
from fleet.store import Effect
from replay.edit import mended, set_fields
from replay.entry import Entry, read_entry
from replay.verdict import Judge, Knowledge, Verdict
from workers.context import Context
from workers.registry import Service

ULID = "01ARZ3NDEKTSV4RRFFQ69G5FAV"
NOW = 1_767_323_045_000
service = Service("s")


@service.handler(
    "order.requested", effect="once", key=lambda payload: payload["key"], stale_after=120
)
def on_order(_ctx: Context, _payload: dict[str, Any]) -> None:
    """Do it."""


@service.handler(
    "order.asked",
    effect="once",
    key=lambda payload: payload["key"],
    unknown=lambda _ctx, _payload: None,
    stale_after=120,
)
def on_asked(_ctx: Context, _payload: dict[str, Any]) -> None:
    """Do it."""


@service.handler("a.idempotent")
def on_idempotent(_ctx: Context, _payload: dict[str, Any]) -> None:
    """Do it."""


@service.handler("a.pure", effect="pure", max_age=10)
def on_pure(_ctx: Context, _payload: dict[str, Any]) -> None:
    """Do it."""


ORDER = {
    "pair": "A",
    "direction": "long",
    "size_usdc": 10,
    "leverage": 1,
    "timestamp_ms": NOW,
    "key": "k",
}


def body(kind: str, payload: dict[str, Any] | None = None, age_s: int = 1) -> bytes:
    """An event's bytes."""
    event = {"eventId": ULID, "type": kind, "agentId": "a", "ts": NOW - age_s * 1000}
    return json.dumps({**event, "payload": payload or {}}).encode()


def effect(state: Any, replays: int = 0) -> dict[str, Effect]:
    """What is known of the order's effect."""
    return {"k": Effect("k", "order", state, "", 0, 1, replays, "", "", "", 0)}


def verdict(raw: bytes, entry: Entry | None = None, **more: Any) -> Verdict:
    """The verdict on a message."""
    stale = more.pop("stale", False)
    judge = Judge(service, even_if_stale=stale)
    known = Knowledge(
        now_ms=NOW, rows=more.get("rows", {}), effects=more.get("effects", {}), homes={"pf.s"}
    )
    return judge.judge(judge.read(entry or read_entry({}, raw), raw, NOW), known)


@pytest.mark.parametrize(
    ("raw", "more", "outcome"),
    [
        (body("a.idempotent"), {}, "run"),
        (body("a.idempotent"), {"rows": {ULID: ("failed", 0)}}, "run"),
        (body("a.idempotent"), {"rows": {ULID: ("failed", 1)}}, "done"),
        (body("a.idempotent"), {"rows": {ULID: ("done", 0)}}, "done"),
        (body("a.idempotent", age_s=9_999_999), {}, "run"),
        (body("a.pure"), {"rows": {ULID: ("failed", 0)}}, "run"),
        (body("a.pure"), {"rows": {ULID: ("done", 1)}}, "done"),
        (body("a.pure", age_s=11), {}, "expired"),
        (body("a.pure", age_s=11), {"stale": True}, "run"),
        (body("order.requested", ORDER), {}, "run"),
        (body("order.requested", ORDER, age_s=121), {}, "expired"),
        (body("order.requested", ORDER, age_s=121), {"stale": True}, "run"),
        (body("order.asked", ORDER, age_s=121), {"effects": effect("unknown")}, "run"),
        (body("order.asked", ORDER, age_s=121), {"effects": effect("failed")}, "expired"),
        (body("order.requested", ORDER), {"effects": effect("done")}, "done"),
        (body("order.requested", ORDER), {"effects": effect("failed")}, "run"),
        (body("order.requested", ORDER), {"effects": effect("failed", 1)}, "refused"),
        (body("order.requested", ORDER), {"effects": effect("unknown")}, "refused"),
        (body("order.requested", {}), {}, "refused"),
        (body("nobody.cares"), {}, "refused"),
        (b"\xff", {}, "refused"),
    ],
)
def test_the_outcome_is_what_a_worker_would_do(raw: bytes, more: dict[str, Any], outcome: str):
    """Seen, done, too old, without effect key, for nobody: each is known before it is sent."""
    assert verdict(raw, **more).outcome == outcome


def test_a_home_of_somebody_else_is_refused():
    """A message goes only to a queue of its own service."""
    entry = read_entry({"x-failed-queue": "pf.other"}, body("a.idempotent"))
    assert verdict(body("a.idempotent"), entry).outcome == "refused"


def test_an_edit_sets_fields():
    """JSON is read as that, everything else is text; money keeps its digits."""
    changed = set_fields(
        body("order.requested", ORDER),
        ["payload.size_usdc=10.10", "payload.pair=BTC/USDT", 'payload.more={"a": [1]}'],
    )
    payload = json.loads(changed, parse_float=str)["payload"]
    assert (payload["size_usdc"], payload["pair"], payload["more"]) == (
        "10.10",
        "BTC/USDT",
        {"a": [1]},
    )


@pytest.mark.parametrize("change", ["", "payload", "=1", "nothing.there=1", "payload.pair.x=1"])
def test_a_path_that_leads_nowhere_is_refused(change: str):
    """What would change nothing, or something unmeant, is one sentence."""
    with pytest.raises(SettingsError):
        set_fields(body("order.requested", ORDER), [change])


@pytest.mark.parametrize(
    "change",
    [
        "eventId=01ARZ3NDEKTSV4RRFFQ69G5FAW",
        "ts=1767323000000",
        "agentId=b",
        "type=a.idempotent",
        "payload.key=other",
        "payload.size_usdc=NaN",
        "payload=1",
        "type=nobody.cares",
    ],
)
def test_an_edit_that_makes_another_event_is_refused(change: str):
    """Id, type, agent, time and effect key stay; what cannot be handled is not sent."""
    old = body("order.requested", ORDER)
    with pytest.raises(SettingsError):
        mended(old, set_fields(old, [change]), service, NOW)


def test_what_could_not_be_read_can_be_mended():
    """An order without a usable key never had an effect: it may get one."""
    old = body("order.requested", {**ORDER, "key": 5, "size_usdc": "x"})
    new = set_fields(old, ['payload.key="k"', "payload.size_usdc=1"])
    assert mended(old, new, service, NOW) == new
