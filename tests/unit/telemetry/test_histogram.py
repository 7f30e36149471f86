"""Our histogram shows what Prometheus's own would."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from prometheus_client import Histogram as Theirs
from prometheus_client.exposition import generate_latest

from fleet.telemetry.histogram import Buckets, Histogram

BOUNDS = (0.1, 1.0, 10.0)
seconds = st.floats(min_value=0, max_value=100, allow_nan=False)


@given(st.lists(seconds), st.lists(seconds))
def test_a_scrape_shows_what_the_library_s_own_would(single: list[float], many: list[float]):
    """Filled one by one or a group at a time, the page equals that of prometheus_client."""
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    mine = Histogram("h_seconds", "Help.", ["a", "b"], bounds=BOUNDS, registry=ours)
    other = Theirs("h_seconds", "Help.", ["a", "b"], buckets=BOUNDS, registry=theirs)
    buckets, child = mine.labels("x", "y"), other.labels("x", "y")
    for value in single:
        buckets.add(value)
    buckets.extend(many)
    for value in single + many:
        child.observe(value)
    assert _numbers(generate_latest(ours)) == _numbers(generate_latest(theirs))


def _numbers(page: bytes) -> dict[str, float]:
    lines = [line for line in page.decode().splitlines() if not line.startswith("#")]
    shown = dict(line.rsplit(" ", 1) for line in lines if "_created" not in line)
    return {name: round(float(value), 6) for name, value in shown.items()}


@given(st.lists(seconds, min_size=1), st.floats(min_value=0, max_value=1))
def test_a_quantile_is_the_bound_above_it(values: list[float], share: float):
    """The asked share of the values is at or below the answer, but not below a lower bound."""
    buckets = Buckets(BOUNDS)
    buckets.extend(values)
    answer = buckets.quantile(share)
    assert sum(value <= answer for value in values) >= share * len(values)
    lower = [bound for bound in BOUNDS if bound < answer]
    if lower and share:
        assert sum(value <= lower[-1] for value in values) < share * len(values)
