"""The REST side over real HTTP."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import pytest

from tests.waiting import until

ORDER = {
    "pair": "A/B",
    "direction": "long",
    "size_usdc": 50,
    "leverage": 3,
    "idempotency_key": "k1",
}
TAPE = ["1000,A/B,100.10,1", "2000,A/B,101.20,1", "3000,C/D,5,2"]


@pytest.fixture
async def client(start: Any, write_tape: Any) -> Any:
    """A stand-in that has played a small tape: A/B stands at 101.20, C/D at 5."""
    started = await start(trades=write_tape(TAPE))
    await started.until(feed="ended")
    return started


async def test_prices_are_the_last_ticks(client: Any) -> None:
    """Each pair once, with its last price as it was on the tape."""
    status, body = await client.call("GET", "/api/market/prices")
    assert status == 200
    assert {pair["pair"]: pair["price"] for pair in body["pairs"]} == {"A/B": 101.2, "C/D": 5}
    assert (await client.call("GET", "/api/status"))[1]["status"] == "ok"


async def test_a_position_is_opened_once_listed_and_closed(client: Any) -> None:
    """Open, the same key again, list, close, close again: one effect each."""
    status, opened = await client.call("POST", "/api/trade/open", ORDER)
    assert (status, opened["entry_price"]) == (201, 101.2)
    status, again = await client.call("POST", "/api/trade/open", {**ORDER, "size_usdc": "99.5"})
    assert status == 409
    assert again["original"] == {**opened, "status": "open"}
    listed = (await client.call("GET", "/api/trade/positions"))[1]["positions"]
    assert listed == [opened]
    assert listed[0]["idempotency_key"] == "k1"
    close = {"position_id": opened["position_id"]}
    status, closed = await client.call("POST", "/api/trade/close", close)
    assert (status, closed["realised_pnl_usdc"], closed["exit_price"]) == (200, 0, 101.2)
    status, repeated = await client.call("POST", "/api/trade/close", close)
    assert (status, repeated["original"]) == (409, closed)
    assert (await client.call("POST", "/api/trade/close", {"position_id": "pos_x"}))[0] == 404
    assert (await client.call("GET", "/api/trade/positions"))[1] == {"positions": []}
    effects = await client.lines("/sandbox/ledger/effects")
    assert [(effect["kind"], effect["key"], effect["pair"]) for effect in effects] == [
        ("open", "k1", "A/B"),
        ("close", opened["position_id"], "A/B"),
    ]
    summary = await client.summary()
    assert (summary["opened"], summary["closed"], summary["duplicates_answered"]) == (1, 1, 2)
    assert len(await client.lines("/sandbox/ledger/duplicates")) == 2


async def test_without_idempotency_each_call_is_an_effect(start: Any, write_tape: Any) -> None:
    """Switched off, the venue executes twice, and the witness counts the key."""
    client = await start(trades=write_tape(TAPE), idempotency=False)
    await client.until(feed="ended")
    answers = [await client.call("POST", "/api/trade/open", ORDER) for _ in range(3)]
    assert [status for status, _ in answers] == [201, 201, 201]
    assert len({body["position_id"] for _, body in answers}) == 3
    summary = await client.summary()
    assert (summary["opened"], summary["keys_executed_twice"]) == (3, 1)


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/api/trade", "order_id"),
        ("/api/faucet/claim", "claim_id"),
        ("/api/escrow/release", "release_id"),
        ("/api/jobs", "job_id"),
    ],
)
async def test_calls_under_a_key_header_happen_once(client: Any, path: str, field: str) -> None:
    """The header's key decides: one effect, then 409 with the original; no key is 400."""
    status, first = await client.call("POST", path, {"amount": "5"}, Idempotency_Key="k")
    assert status == 201
    status, again = await client.call("POST", path, None, Idempotency_Key="k")
    assert (status, again["original"]) == (409, first)
    assert (await client.call("POST", path, {}, Idempotency_Key="l"))[1][field] != first[field]
    assert (await client.call("POST", path, {}))[0] == 400
    assert (await client.call("POST", path, {}, Idempotency_Key="x" * 129))[0] == 400
    assert (await client.summary())["effects"] == 2


async def test_the_other_endpoint_opens_a_position_and_tells_an_order_s_id(client: Any) -> None:
    """Its key is in the header; position and ledger are as for the first; a 409 repeats the id."""
    wish = {name: value for name, value in ORDER.items() if name != "idempotency_key"}
    status, taken = await client.call("POST", "/api/trade", wish, Idempotency_Key="k9")
    assert (status, list(taken)) == (201, ["order_id"])
    again = await client.call("POST", "/api/trade", wish, Idempotency_Key="k9")
    assert (again[0], again[1]["original"]) == (409, taken)
    listed = (await client.call("GET", "/api/trade/positions"))[1]["positions"]
    assert [(one["idempotency_key"], one["size_usdc"]) for one in listed] == [("k9", 50)]
    assert (await client.summary())["opened"] == 1
    wrong = {**wish, "size_usdc": -1}
    assert (await client.call("POST", "/api/trade", wrong, Idempotency_Key="k10"))[0] == 422


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"\xff", 400),
        (b'{"pair":"\\ud800"}', 400),
        (b"[" * 5000, 422),
        (b"[]", 422),
        (b"{}", 422),
        ({**ORDER, "direction": "up"}, 422),
        ({**ORDER, "size_usdc": "NaN"}, 422),
        ({**ORDER, "size_usdc": -1}, 422),
        ({**ORDER, "size_usdc": None}, 422),
        ({**ORDER, "leverage": 1000}, 422),
        ({**ORDER, "idempotency_key": ""}, 422),
        ({**ORDER, "pair": "NO/PE"}, 422),
        (b'{"pair":"A/B","direction":"long","idempotency_key":"k","size_usdc":1e999999}', 422),
    ],
)
async def test_a_bad_order_is_refused_in_json(client: Any, body: Any, status: int) -> None:
    """Garbage is 400, a wrong order 422, each with a sentence; nothing is done."""
    answered, refusal = await client.call("POST", "/api/trade/open", body)
    assert answered == status
    assert refusal["error"]
    assert (await client.summary())["effects"] == 0


@pytest.mark.parametrize(
    "headers",
    [{"Authorization": "Bearer pf_live_wrong"}, {"Authorization": "pf_live_sandbox"},
     {"Authorization": "Bearer \udcff"}, {"X_Agent_Id": ""}],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/api/status", "/api/trade/positions", "/api/no/such"])
async def test_the_key_is_asked_for(client: Any, path: str, headers: dict[str, str]) -> None:
    """Every path of the platform needs the key and a named agent."""
    assert (await client.call("GET", path, **headers))[0] == 401


async def test_errors_are_answered_before_anything_is_done(start: Any, write_tape: Any) -> None:
    """An injected error is a 503 and no effect."""
    client = await start(trades=write_tape(TAPE), faults="errors=1")
    assert (await client.call("POST", "/api/trade/open", ORDER))[0] == 503
    summary = await client.summary()
    assert (summary["effects"], summary["faults"]["errors"]) == (0, 1)
    assert (await client.call("GET", "/api/trade/positions"))[0] == 200


async def test_a_lost_answer_was_executed(start: Any, write_tape: Any) -> None:
    """The connection drops without an answer, and the position is open."""
    client = await start(trades=write_tape(TAPE), faults="lost_answers=1,latency=1ms")
    await client.until(feed="ended")
    with pytest.raises(aiohttp.ClientConnectionError):
        await client.call("POST", "/api/trade/open", ORDER)
    listed = (await client.call("GET", "/api/trade/positions"))[1]["positions"]
    assert [position["idempotency_key"] for position in listed] == ["k1"]


async def test_a_timeout_was_not_executed(start: Any, write_tape: Any) -> None:
    """No answer comes, however long one waits, and nothing is done."""
    client = await start(trades=write_tape(TAPE), faults="timeouts=1")
    await client.until(feed="ended")
    calling = asyncio.create_task(client.call("POST", "/api/trade/open", ORDER))

    async def counted() -> bool:
        return bool((await client.summary())["faults"]["timeouts"])

    await until(counted)
    await asyncio.sleep(0.2)
    assert not calling.done()
    calling.cancel()
    assert (await client.summary())["effects"] == 0
