"""`fleet backup`, `restore` and `prune`, as a person types them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aio_pika

from fleet import clock
from fleet.core.events import Event, write_event
from fleet.core.ulid import make_ulid
from fleet.store import Settled, Store, audit, open_store
from fleet.store.prune import Pruned
from topology import names

DAY_MS = 86_400_000
HANDLERS = """
from workers.registry import Service

service = Service("test.kept")


@service.handler("test.done")
def handle(context, payload):
    pass
"""
Done = Callable[..., Settled]


def fleet(*arguments: str, cwd: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        [sys.executable, "-m", "fleet", *arguments],
        cwd=cwd,
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


async def test_from_sqlite_to_postgresql_and_back(store: Store, postgres_url: str, tmp_path: Path):
    """What a file held stands in the server afterwards, and the way back is the same."""
    first, third = (f"sqlite:///{tmp_path / name}" for name in ("first.db", "third.db"))
    opened = open_store(first)
    await opened.open()
    rows = [Settled("svc", f"E{number}", "done", 1, "w", number) for number in range(500)]
    await opened.commit(rows)
    await opened.close()
    for source, target in ((first, postgres_url), (postgres_url, third)):
        made = fleet("backup", "fleet.gz", cwd=tmp_path, STORE_URL=source)
        assert (made.returncode, made.stderr) == (0, "")
        assert made.stdout == "500 rows are in fleet.gz.\n"
        restored = fleet("restore", "fleet.gz", cwd=tmp_path, STORE_URL=target)
        assert restored.stdout == "500 rows are restored.\n"
    assert await store.read(lambda tx: audit.outcomes(tx, "svc")) == {"done": 500}
    refused = fleet("restore", "fleet.gz", cwd=tmp_path, STORE_URL=postgres_url)
    assert refused.returncode == 2
    assert refused.stderr.startswith("fleet: The store is not empty")
    forced = fleet("restore", "fleet.gz", "--force", "--json", cwd=tmp_path, STORE_URL=third)
    assert json.loads(forced.stdout) == {"journal": 500}


async def test_prune_leaves_what_can_come_back(
    store: Store, postgres_url: str, amqp_url: str, tmp_path: Path, done: Done
):
    """Of old rows those stay whose message waits in a failed queue or is as young as the log."""
    (tmp_path / "mine.py").write_text(HANDLERS)
    settings = {"AMQP_URL": amqp_url, "STORE_URL": postgres_url}

    def prune(*arguments: str) -> Any:
        ran = fleet("prune", *arguments, "--json", cwd=tmp_path, **settings)
        assert (ran.returncode, ran.stderr) == (0, "")
        return json.loads(ran.stdout)

    applied = fleet("topology", "apply", "--handlers", "mine:service", cwd=tmp_path, **settings)
    assert applied.returncode == 0, applied.stderr
    now_ms = clock.now_ms()
    days = (200, 150, 100, 50)
    ids = {day: make_ulid(now_ms - day * DAY_MS, os.urandom(10)) for day in days}
    rows = [done(ids[day], service="test.kept", at_ms=now_ms - day * DAY_MS) for day in days]
    await store.commit(rows)
    await publish(amqp_url, "", names.failed("test.kept"), ids[150])
    assert prune("--older-than", "30d", "--dry-run")["journal"] == 3
    await publish(amqp_url, names.INGEST, "test.done", ids[100])
    assert prune("--older-than", "30d") == {
        **dict.fromkeys(Pruned.__struct_fields__, 0),
        "journal": 1,
        "kept": 1,
    }
    left = [row.event_id async for page in audit.entries(store, "test.kept") for row in page]
    assert left == sorted(ids[day] for day in (150, 100, 50))
    refused = fleet("prune", "--older-than", "29d", cwd=tmp_path, **settings)
    assert (refused.returncode, refused.stderr[:7]) == (2, "fleet: ")


async def publish(amqp_url: str, exchange: str, key: str, event_id: str) -> None:
    """Publish an event, confirmed."""
    event = Event(event_id, "test.done", "agent", {}, 1_780_000_000_000)
    connection = await aio_pika.connect(amqp_url)
    async with connection, connection.channel() as channel:
        to = await channel.get_exchange(exchange, ensure=False) if exchange else None
        message = aio_pika.Message(write_event(event), headers={"x-event-id": event_id})
        await (to or channel.default_exchange).publish(message, key)
