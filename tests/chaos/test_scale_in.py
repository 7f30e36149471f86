"""Half of the replicas are asked to stop under load, in processes of their own."""

from __future__ import annotations

from bench.scale import Options, scale_in
from fleet.amqp.looks import open_looks

REPLICAS = 4
SLOW_S = 0.4
"""All the work takes seconds, so that a stop request comes amid it on a busy machine too."""
UNCOUNTED = (4, 3)
"""From here on the broker does not count what was only handed back."""


async def test_half_of_the_replicas_leave_without_a_trace(amqp_url: str, store_url: str):
    """Each effect once, none lost; what each handed back counts once at most."""
    async with open_looks(amqp_url) as looks:
        version = tuple(int(part) for part in looks.broker[1].split(".")[:2])
    left = await scale_in(Options(amqp_url, store=store_url, handler_s=SLOW_S), REPLICAS, 1_000)
    assert (left["lost"], left["doubled"]) == (0, 0)
    assert left["came_again"]
    assert left["most_counted"] <= (0 if version >= UNCOUNTED else REPLICAS // 2)
