"""What a handler logs names the event it had in hand."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import structlog

from fleet.telemetry import log as logs
from workers.context import Context
from workers.registry import Service


async def test_lines_of_handlers_that_run_at_once_name_their_own_event(
    bench: Any, service: Service, capsys: Any
):
    """Two handlers wait for each other; each line has its event, service and worker."""
    logs.configure(json=True)
    together = asyncio.Barrier(2)

    @service.handler("job.*")
    async def handle(_context: Context, payload: dict[str, Any]) -> None:
        await together.wait()
        structlog.get_logger("mine").info("handled", number=payload["number"])

    await bench.lay_out(service)
    worker = await bench.start(service)
    events = [bench.event("job.completed", {"number": number}) for number in range(2)]
    for event in events:
        await bench.publish(event)
    await bench.settled(service, events)
    await bench.stop(worker)
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    said = {line["number"]: line for line in lines if line["event"] == "handled"}
    for number, event in enumerate(events):
        line = said[number]
        assert (line["event_id"], line["type"], line["attempt"]) == (event.event_id, event.type, 1)
        assert (line["service"], line["worker"]) == (service.name, worker.name)
    (drained,) = [line for line in lines if line["event"] == "worker drained"]
    assert "event_id" not in drained
