"""However the socket cuts the stream, each delivery arrives whole; the rest goes on unchanged."""

from __future__ import annotations

import asyncio
from typing import Any

import pamqp.frame
from hypothesis import given
from hypothesis import strategies as st
from pamqp import commands
from pamqp.body import ContentBody
from pamqp.decode import field_table
from pamqp.header import ContentHeader
from pamqp.heartbeat import Heartbeat

from fleet.amqp.diverter import HEARTBEAT, Diverter

HEADERS = st.dictionaries(
    st.text("abcdef-x", min_size=1, max_size=8),
    st.text(max_size=8) | st.integers(-(2**31), 2**31 - 1) | st.booleans(),
    max_size=4,
)
MESSAGES = st.lists(
    st.tuples(st.integers(1, 3), st.binary(max_size=40), HEADERS, st.booleans()), max_size=8
)


def wire(channel: int, tag: int, body: bytes, headers: dict[str, Any], *, again: bool) -> bytes:
    """A delivery as a broker writes it, its body in frames of at most 16 bytes."""
    properties = commands.Basic.Properties(
        content_type="application/json", headers=headers or None, delivery_mode=2, message_id="m"
    )
    frames = [
        commands.Basic.Deliver("consumer", tag, again, "pf.events", "market.tick"),
        ContentHeader(0, len(body), properties),
        *(ContentBody(body[at : at + 16]) for at in range(0, len(body), 16)),
    ]
    return b"".join(pamqp.frame.marshal(frame, channel) for frame in frames)


def feed(diverter: Diverter, octets: bytes, cuts: list[int]) -> None:
    """Hand over the bytes in pieces."""
    at = 0
    for cut in sorted(min(cut, len(octets)) for cut in cuts):
        diverter.feed_data(octets[at:cut])
        at = cut
    diverter.feed_data(octets[at:])


async def passed_on(diverter: Diverter) -> bytes:
    """What aiormq would read, without the signs of life made for it."""
    diverter.feed_eof()
    octets, frames, at = await diverter.read(), [], 0
    while at < len(octets):
        end = at + 8 + int.from_bytes(octets[at + 3 : at + 7], "big")
        frames.append(octets[at:end])
        at = end
    return b"".join(frame for frame in frames if frame != HEARTBEAT)


@given(MESSAGES, st.lists(st.integers(0, 2000), max_size=30))
async def test_deliveries_arrive_whole_and_in_order(messages: list[Any], cuts: list[int]):
    """Channels 1 and 2 are diverted, 3 is not; methods of every channel reach aiormq."""
    diverter = Diverter(asyncio.get_running_loop())
    got: list[Any] = []
    for number in (1, 2):

        def take(
            tag: int, body: bytes, table: bytes, *, redelivered: bool, number: int = number
        ) -> None:
            headers = field_table(table)[1] if table else {}
            got.append((number, tag, body, headers, redelivered))

        diverter.divert(number, take)
    octets, others, wanted = b"", b"", []
    for tag, (channel, body, headers, again) in enumerate(messages, 1):
        delivery = wire(channel, tag, body, headers, again=again)
        other = pamqp.frame.marshal(commands.Basic.Cancel("consumer"), channel)
        octets += delivery + other
        others += (delivery if channel == 3 else b"") + other
        if channel != 3:
            wanted.append((channel, tag, body, headers, again))
    feed(diverter, octets, cuts)
    assert got == wanted
    assert await passed_on(diverter) == others


@given(st.binary(min_size=8, max_size=200).filter(lambda octets: octets[0] not in (1, 2, 3, 8)))
async def test_what_is_no_amqp_goes_on_as_it_is(octets: bytes):
    """A server of another kind is aiormq's to complain about."""
    diverter = Diverter(asyncio.get_running_loop())
    diverter.divert(1, lambda *_args, **_kwargs: None)
    diverter.feed_data(octets)
    diverter.feed_data(b"more")
    diverter.feed_eof()
    assert await diverter.read() == octets + b"more"


async def test_a_busy_broker_still_looks_alive():
    """While all that comes is diverted, aiormq is given heartbeats to count."""
    diverter = Diverter(asyncio.get_running_loop())
    diverter.divert(1, lambda *_args, **_kwargs: None)
    diverter.feed_data(wire(1, 1, b"{}", {}, again=False))
    diverter.feed_eof()
    octets = await diverter.read()
    assert octets == pamqp.frame.marshal(Heartbeat(), 0) == HEARTBEAT


async def test_a_channel_that_is_restored_is_aiormqs_again():
    """After `restore`, a delivery goes on; one by a newer owner of the number stays."""
    diverter = Diverter(asyncio.get_running_loop())
    taken: list[str] = []

    def old(*_args: Any, **_kwargs: Any) -> None:
        taken.append("old")

    def new(*_args: Any, **_kwargs: Any) -> None:
        taken.append("new")

    diverter.divert(1, old)
    diverter.divert(1, new)
    diverter.restore(1, old)
    delivery = wire(1, 1, b"{}", {}, again=False)
    diverter.feed_data(delivery)
    diverter.restore(1, new)
    diverter.feed_data(delivery)
    assert taken == ["new"]
    assert await passed_on(diverter) == delivery
