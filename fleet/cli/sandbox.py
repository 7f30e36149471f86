"""`fleet sandbox`: a stand-in Purple Flea on this machine."""

from __future__ import annotations

import asyncio
import logging
import signal
from pathlib import Path
from typing import Any

import click
import uvloop
from aiohttp.http_exceptions import HttpProcessingError

from sandbox.server import Sandbox
from sandbox.settings import DEMO_AGENT, DEMO_KEY, SandboxSettings, load


@click.command()
@click.option("--host", help="Address to listen on.  [default: 127.0.0.1]")
@click.option("--port", type=int, help="Port to listen on; 0 takes a free one.  [default: 8765]")
@click.option("--agent-id", help=f"The agent that the events are for.  [default: {DEMO_AGENT}]")
@click.option(
    "--key",
    help="The key that clients must show; SANDBOX_KEY keeps it off the screen. Without either it "
    f"is {DEMO_KEY}, DEMO_KEY in sandbox/settings.py: it opens nothing but a sandbox.",
)
@click.option("--trades", type=Path, help="Play this tape (csv or csv.gz: ts_ms,pair,price,qty).")
@click.option("--speed", help="Times as fast as the tape, or max.  [default: 1]")
@click.option("--events", type=int, help="Stop the feed after this many trades.")
@click.option("--seed", type=int, help="Seed of market, script and faults.  [default: 1]")
@click.option(
    "--script-every",
    type=int,
    help="One wallet, escrow or job event per this many ticks; 0 for none.  [default: 200]",
)
@click.option("--wait", is_flag=True, default=None, help="Start the feed with the first client.")
@click.option(
    "--no-idempotency",
    "idempotency",
    flag_value=False,
    type=bool,
    default=None,
    help="Execute every call, also under a key that is known.",
)
@click.option("--strict-tape", is_flag=True, default=None, help="Refuse a tape with a bad line.")
@click.option("--faults", help="Inject faults: errors=0.3,latency=500ms,timeouts=0.05,…")
@click.option(
    "--buffer-seconds", type=float, help="How long events are kept for resume.  [default: 300]"
)
def command(**options: Any) -> None:
    """Run a stand-in Purple Flea: stream, REST and a ledger of all that happened.

    Every option can also be set as SANDBOX_… in the environment.
    """
    settings = load(**options)
    logging.getLogger("aiohttp.server").addFilter(_ours)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_run(settings))


def _ours(record: logging.LogRecord) -> bool:
    # Bytes that are no HTTP are answered with 400; a traceback would blame the stand-in.
    return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))


async def _run(settings: SandboxSettings) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with Sandbox(settings) as sandbox:
        click.echo(f"sandbox listening on {sandbox.url}")
        failure = asyncio.ensure_future(sandbox.failure())
        stopped = asyncio.ensure_future(stop.wait())
        await asyncio.wait((failure, stopped), return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if failure.done():
            failure.result()
        failure.cancel()
