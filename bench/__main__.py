"""`python -m bench WHAT`: figures of this machine, as JSON."""

from __future__ import annotations

import asyncio
import json
from contextlib import ExitStack
from typing import Any, get_args

import click
import uvloop

from bench import agent, consume, latency, publish, scale
from fleet.broker import provide
from fleet.telemetry import log as logs
from topology.model import QueueType
from workers.registry import EffectClass


@click.command()
@click.argument("what", type=click.Choice(["publish", "consume", "latency", "agent", "scale"]))
@click.option("--events", type=click.IntRange(1000, 90_000), default=50_000, show_default=True)
@click.option("--effect", type=click.Choice(get_args(EffectClass)), default=None)
@click.option("--queue-type", type=click.Choice(get_args(QueueType)), default="quorum")
@click.option("--rate", type=click.IntRange(1), default=1_000, help="Events a second (latency).")
@click.option("--amqp", default=None, help="The broker; else AMQP_URL, Docker or a local one.")
@click.option("--store", default="", help="A PostgreSQL URL (consume, scale); else a file.")
@click.option("--bare", is_flag=True, help="Plain aio-pika as well, for the ratio.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
def main(what: str, *, amqp: str | None, as_json: bool, **given: Any) -> None:
    """Measure the real publisher, worker, way from stream to handler, or the agent's decisions.

    Or how replicas share what waits: scale has eight at most, and lets half of them go.
    """
    logs.configure(level="warning")
    with ExitStack() as stack:
        # The agent's decisions need no broker.
        url = "" if what == "agent" else amqp or stack.enter_context(provide()).amqp_url
        figures = {"bench": what, **_measure(what, url, given)}
    click.echo(json.dumps(figures, indent=None if as_json else 2))


def _measure(what: str, url: str, given: dict[str, Any]) -> dict[str, Any]:
    events, queue_type, bare = given["events"], given["queue_type"], given["bare"]
    if what == "publish":
        return publish.run(publish.Options(events, queue_type, url, bare))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        if what == "agent":
            return runner.run(agent.run(events))
        default: EffectClass = "pure" if what == "consume" else "idempotent"
        effect: EffectClass = given["effect"] or default
        if what == "consume":
            options = consume.Options(
                url, events, effect, queue_type, bare=bare, store=given["store"]
            )
            return runner.run(consume.run(options))
        if what == "scale":
            return runner.run(
                scale.run(
                    scale.Options(url, effect=effect, queue_type=queue_type, store=given["store"])
                )
            )
        return runner.run(
            latency.run(latency.Options(url, events, given["rate"], effect, queue_type))
        )


if __name__ == "__main__":
    main()
