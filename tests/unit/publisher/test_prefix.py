"""The cursor never passes what is not settled, and each arrival passes once."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from publisher.prefix import Prefix


@given(st.data(), st.integers(0, 60))
def test_only_the_settled_front_passes(data: st.DataObject, count: int):
    """In whatever order answers come, arrivals pass in order, once, and only when settled."""
    prefix: Prefix[int] = Prefix()
    waiting: set[int] = set()
    passed: list[int] = []
    arrived = 0
    while arrived < count or waiting:
        if arrived < count and (not waiting or data.draw(st.booleans())):
            assert prefix.arrive(arrived) == arrived
            waiting.add(arrived)
            arrived += 1
        else:
            number = data.draw(st.sampled_from(sorted(waiting)))
            waiting.remove(number)
            prefix.settle(number)
            prefix.settle(number)
        if data.draw(st.booleans()):
            passed += prefix.take()
        assert not waiting or not passed or passed[-1] < min(waiting)
        assert len(prefix) == arrived - len(passed)
    passed += prefix.take()
    assert passed == list(range(count))
    assert len(prefix) == 0
