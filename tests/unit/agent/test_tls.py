"""The platform is who its certificate says, and the agent's key crosses no network openly."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest
import trustme
from aiohttp import web
from aiohttp.test_utils import TestServer
from websockets.asyncio.server import ServerConnection, serve

from agent.settings import AgentSettings
from agent.venue import Venue
from fleet.core.errors import NetworkError, SettingsError
from fleet.settings import PlatformSettings, load
from publisher.settings import BridgeSettings
from publisher.sources.stream import StreamSource

KEY = "pf_live_key"
EVENT = b'{"eventId":"01K7QZ3V8E0000000000000002"}'


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    """Who vouches for the platform."""
    return trustme.CA()


@pytest.fixture
def known(ca: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """What PF_CA_FILE makes of that CA."""
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    monkeypatch.setenv("PF_CA_FILE", str(tmp_path / "ca.pem"))
    return load(PlatformSettings).tls()


def serving(ca: trustme.CA, name: str = "127.0.0.1") -> ssl.SSLContext:
    """A server's side, as `name`."""
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    ca.issue_cert(name).configure_cert(tls)
    return tls


async def positions(_: web.Request) -> web.Response:
    """None are open."""
    return web.json_response({"positions": []})


@pytest.fixture
async def https(ca: trustme.CA) -> AsyncIterator[str]:
    """A venue behind TLS."""
    app = web.Application()
    app.router.add_get("/{tail:.*}", positions)
    server = TestServer(app, scheme="https", host="127.0.0.1")
    await server.start_server(ssl=serving(ca))
    yield f"https://127.0.0.1:{server.port}"
    await server.close()


async def test_a_venue_is_verified_with_the_ca_that_is_named(https: str, known: ssl.SSLContext):
    """With the CA it answers; without it nothing is sent."""
    async with Venue(https, "a", KEY, timeout_s=60, tls=known) as venue:
        assert await venue.positions() == ()
    async with Venue(https, "a", KEY, timeout_s=60) as unknown:
        with pytest.raises(NetworkError):
            await unknown.positions()


async def test_a_stream_is_verified_with_the_ca_that_is_named(
    ca: trustme.CA, known: ssl.SSLContext
):
    """Events come from a stream whose certificate the named CA has signed."""
    entered: list[str] = []

    async def speak(socket: ServerConnection) -> None:
        entered.append(str(socket.request and socket.request.headers["Authorization"]))
        await socket.recv()
        await socket.send(EVENT.decode())
        await socket.wait_closed()

    async with serve(speak, "127.0.0.1", 0, ssl=serving(ca)) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        source = StreamSource(f"wss://127.0.0.1:{port}", KEY, "a", tls=known)
        async with aclosing(source.frames(lambda: "")) as frames:
            assert await anext(frames) == EVENT
    assert entered == [f"Bearer {KEY}"]


@pytest.mark.parametrize(
    ("url", "more", "fine"),
    [
        ("http://127.0.0.1:8765", {}, True),
        ("http://localhost", {}, True),
        ("http://[::1]:1", {}, True),
        ("http://sandbox:8765", {}, True),
        ("https://venue.example", {}, True),
        ("http://venue.example", {}, False),
        ("http://10.0.0.7", {}, False),
        ("http://[2001:db8::1]", {}, False),
        ("http://venue.example", {"PF_INSECURE": "1"}, True),
    ],
)
def test_a_plain_address_beyond_the_private_network_is_refused(
    url: str, more: dict[str, str], fine: bool, monkeypatch: pytest.MonkeyPatch
):
    """The key would be read by whoever stands between; who has a network of his own says so."""
    monkeypatch.setenv("PF_API_URL", url)
    monkeypatch.setenv("PF_STREAM_URL", url.replace("http", "ws", 1))
    for name, value in more.items():
        monkeypatch.setenv(name, value)
    for kind in (AgentSettings, BridgeSettings):
        if fine:
            load(kind)
        else:
            with pytest.raises(SettingsError, match="PF_INSECURE"):
                load(kind)


def test_a_ca_file_that_holds_none_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """One sentence, before anything is sent."""
    (tmp_path / "ca.pem").write_text("no certificate")
    monkeypatch.setenv("PF_CA_FILE", str(tmp_path / "ca.pem"))
    with pytest.raises(SettingsError, match="PF_CA_FILE"):
        load(PlatformSettings).tls()
