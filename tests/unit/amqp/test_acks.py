"""Acks are joined, but never name a delivery that is unfinished, or one twice."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.amqp.acks import AckLine
from fleet.amqp.delivery import Delivery, Origin
from fleet.core.errors import LogicError


class Broker:
    """A channel as the broker keeps it: it refuses a tag that is not outstanding."""

    def __init__(self, count: int) -> None:
        self.outstanding = set(range(1, count + 1))
        self.acked: list[int] = []
        self.nacked: list[int] = []
        self.frames = 0
        self.fails = False

    async def basic_ack(self, delivery_tag: int, *, multiple: bool = False, wait: bool = True):
        """Settle a tag, or all up to it."""
        assert not wait
        self._take(delivery_tag)
        upto = {tag for tag in self.outstanding if tag < delivery_tag} if multiple else set()
        self.outstanding -= upto
        self.acked += [*sorted(upto), delivery_tag]

    async def basic_nack(self, delivery_tag: int, *, requeue: bool = True, wait: bool = True):
        """Hand a tag back."""
        assert requeue
        assert not wait
        self._take(delivery_tag)
        self.nacked.append(delivery_tag)

    def _take(self, tag: int) -> None:
        if self.fails:
            raise OSError("gone")
        self.frames += 1
        assert tag in self.outstanding, "PRECONDITION_FAILED - unknown delivery tag"
        self.outstanding.remove(tag)


@given(
    st.permutations(range(1, 25)),
    st.lists(st.integers(1, 6), min_size=1),
    st.sets(st.integers(1, 24)),
)
async def test_every_finished_delivery_is_settled_once(
    order: Sequence[int], groups: list[int], returned: set[int]
):
    """In whatever order and groups deliveries finish, the broker hears of each once."""
    broker = Broker(24)
    line = AckLine(broker)
    waiting = list(order)
    turn = 0
    while waiting:
        size = groups[turn % len(groups)]
        turn += 1
        for tag in waiting[:size]:
            if tag in returned:
                line.nack(tag)
            else:
                line.ack(tag)
        waiting = waiting[size:]
        finished = set(order) - set(waiting)
        await line.flush()
        assert broker.outstanding == set(waiting)
        assert set(broker.acked) == finished - returned
    assert sorted(broker.nacked) == sorted(returned)


async def test_a_run_of_deliveries_costs_one_ack():
    """A thousand finished in order are one frame; one slow delivery does not hold up the rest."""
    broker = Broker(1000)
    line = AckLine(broker)
    for tag in range(1, 1001):
        line.ack(tag)
    await line.flush()
    assert broker.frames == 1
    slow = AckLine(behind := Broker(3))
    slow.ack(2)
    slow.ack(3)
    await slow.flush()
    assert sorted(behind.acked) == [2, 3]
    assert slow.holds(3)


async def test_on_a_lost_channel_nothing_is_sent():
    """A flush on a channel that breaks closes the line instead of raising."""
    broker = Broker(3)
    broker.fails = True
    line = AckLine(broker)
    line.ack(1)
    await line.flush()
    assert not line.is_open
    line.ack(2)
    await line.flush()
    assert broker.acked == []


def test_a_second_settlement_is_loud():
    """A delivery is settled once: acking what was handed back is an error, not a frame."""
    delivery = Delivery(
        AckLine(Broker(1)), 1, Origin("q", is_lane=False), b"", {}, redelivered=False
    )
    delivery.give_back()
    with pytest.raises(LogicError, match="settled twice"):
        delivery.ack()
