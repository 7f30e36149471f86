"""A real stand-in on a free port, inside the test's own loop."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
import websockets

from sandbox.server import Sandbox
from sandbox.settings import DEMO_KEY, SandboxSettings

HEADERS = {"Authorization": f"Bearer {DEMO_KEY}", "X-Agent-Id": "pf_agent_sandbox"}
DEADLINE = 60.0


class Client:
    """What a client of the platform can do, in few words."""

    def __init__(self, sandbox: Sandbox, http: aiohttp.ClientSession) -> None:
        self.sandbox = sandbox
        self._http = http

    async def call(
        self, method: str, path: str, body: Any = None, **headers: str
    ) -> tuple[int, Any]:
        """Status and JSON body of one request; bytes go out as they are."""
        data = body if isinstance(body, bytes) or body is None else msgspec.json.encode(body)
        given = {**HEADERS, **{name.replace("_", "-"): value for name, value in headers.items()}}
        async with self._http.request(
            method, self.sandbox.url + path, data=data, headers=given
        ) as response:
            return response.status, msgspec.json.decode(await response.read())

    async def lines(self, path: str) -> list[Any]:
        """The JSON lines that a path streams."""
        async with self._http.get(self.sandbox.url + path) as response:
            return [msgspec.json.decode(line) for line in (await response.read()).splitlines()]

    async def summary(self) -> dict[str, Any]:
        """What the stand-in says of itself."""
        return (await self.call("GET", "/sandbox/summary"))[1]

    async def until(self, **wanted: Any) -> dict[str, Any]:
        """The first summary that says all that is wanted; fails after a deadline."""
        async with asyncio.timeout(DEADLINE):
            while True:
                summary = await self.summary()
                if all(summary[name] == value for name, value in wanted.items()):
                    return summary
                await asyncio.sleep(0.01)

    def stream(self, queue: int | None = None, **headers: str) -> websockets.connect:
        """A raw connection to the stream; `queue` frames are read ahead, or all there are."""
        given = {**HEADERS, **{name.replace("_", "-"): value for name, value in headers.items()}}
        url = self.sandbox.url.replace("http", "ws", 1) + "/api/stream"
        return websockets.connect(
            url, additional_headers=given, compression=None, max_queue=queue, ping_interval=None
        )

    async def subscribe(
        self, socket: websockets.ClientConnection, *topics: str, resume_from: str = ""
    ) -> dict[str, Any]:
        """Subscribe, and give the control frame."""
        frame = {"action": "subscribe", "resumeFrom": resume_from, "topics": topics or ("*",)}
        await socket.send(msgspec.json.encode(frame).decode())
        return await receive(socket)


async def receive(socket: websockets.ClientConnection) -> Any:
    """The next frame, decoded."""
    async with asyncio.timeout(DEADLINE):
        return msgspec.json.decode(await socket.recv())


Start = Callable[..., Any]


@pytest.fixture
async def start(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Start]:
    """Start a stand-in with the given settings; it is stopped after the test."""
    for name in [name for name in os.environ if name.startswith("SANDBOX_")]:
        monkeypatch.delenv(name)
    async with AsyncExitStack() as stack:

        async def begin(**settings: Any) -> Client:
            # A hundred trades of the made-up market stay within its first minute: no candle.
            plain = {"port": 0, "speed": "max", "events": 100, "script_every": 0}
            patient = {"start_ms": 1_700_000_040_000, "idle_seconds": 3600}
            given = {**plain, **patient, **settings}
            sandbox = await stack.enter_async_context(Sandbox(SandboxSettings(**given)))
            return Client(sandbox, await stack.enter_async_context(aiohttp.ClientSession()))

        yield begin


@pytest.fixture
def write_tape(tmp_path: Path) -> Callable[[Iterable[str]], Path]:
    """Write lines under the header into a new tape."""

    def write(lines: Iterable[str]) -> Path:
        path = tmp_path / "tape.csv"
        path.write_text("\n".join(["ts_ms,pair,price,qty", *lines]) + "\n")
        return path

    return write


@pytest.fixture(scope="session")
def recorded() -> Path:
    """The recorded trades of two busy pairs."""
    root = Path(__file__).parents[3]
    folder = Path(os.environ.get("FLEET_DATA", root.parent / "shared" / "data"))
    path = folder / "trades-btcusdt-ethusdt-20240808.csv.gz"
    if not path.exists():
        pytest.skip("the recorded trades are not on this machine: set FLEET_DATA")
    return path
