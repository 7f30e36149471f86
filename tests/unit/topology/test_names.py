"""Names, partitions and buckets."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from topology import names


def test_a_service_s_names_are_those_of_the_design():
    """Operators find the queues under the documented names."""
    assert names.work_queue("trading.agent") == "pf.trading.agent"
    assert names.failed("trading.agent") == "pf.trading.agent.failed"
    assert names.retry("trading.agent", 3) == "pf.trading.agent.retry.03"
    assert names.lanes_exchange("trading.agent", "market.tick") == "pf.trading.agent.ticks"
    assert names.lane("trading.agent", "market.tick", 15) == "pf.trading.agent.ticks.15"


def test_a_pair_s_partition_never_changes():
    """The partition is crc32 mod N: known values hold across processes and releases."""
    assert [names.partition(pair, 16) for pair in ("BTC/USDT", "ETH/USDT")] == [15, 5]


@given(st.text(), st.integers(1, 256))
def test_every_key_has_a_lane(key: str, partitions: int):
    """Whatever the key, its partition is one of the lanes."""
    try:
        key.encode()
    except UnicodeEncodeError:
        return
    assert 0 <= names.partition(key, partitions) < partitions


@given(st.integers(0, 256_000 * 2), st.integers(1, 16))
def test_a_delay_goes_into_the_smallest_bucket_that_holds_it(delay_ms: int, buckets: int):
    """No bucket below holds the delay; none above the last is ever named."""
    number = names.bucket(delay_ms, buckets)
    assert 0 <= number < buckets
    assert number == 0 or names.bucket_ms(number - 1) < delay_ms
    assert number == buckets - 1 or delay_ms <= names.bucket_ms(number)


def test_a_delay_longer_than_any_bucket_waits_in_the_last():
    """A Retry-After of an hour goes through the last bucket again and again."""
    assert names.bucket(3_600_000) == names.BUCKETS - 1
    assert names.bucket_ms(names.BUCKETS - 1) == 512_000


def test_a_delay_that_is_over_waits_in_the_first():
    """A deadline in the past is no reason to crash."""
    assert names.bucket(-5) == 0
