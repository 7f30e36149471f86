"""Over TLS to a real broker: verified by name and CA, and with our own certificate where asked.

The broker's own listener is behind a door that ends TLS, so every kind of broker can be used.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import trustme

from fleet.amqp.admin import Admin
from fleet.amqp.connection import Link
from fleet.amqp.looks import open_looks
from fleet.broker import RunningBroker
from fleet.broker.handshake import check
from fleet.core.errors import BrokerError, SettingsError
from fleet.settings import AmqpSettings, load
from topology.management import management_url, survey

Door = Callable[..., AbstractAsyncContextManager[int]]


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    """Who vouches for the broker."""
    return trustme.CA()


@pytest.fixture
def files(ca: trustme.CA, tmp_path: Path) -> dict[str, str]:
    """The settings that name the CA, and our own certificate."""
    ours = ca.issue_cert("worker")
    paths = {name: tmp_path / f"{name}.pem" for name in ("ca", "cert", "key")}
    ca.cert_pem.write_to_path(paths["ca"])
    ours.cert_chain_pems[0].write_to_path(paths["cert"])
    ours.private_key_pem.write_to_path(paths["key"])
    return {f"AMQP_{name.upper()}_FILE": str(path) for name, path in paths.items()}


@asynccontextmanager
async def door(
    ca: trustme.CA, to: str, *, name: str = "127.0.0.1", asks: bool = False
) -> AsyncIterator[int]:
    """A port that ends TLS as `name` and passes all on to the address `to`."""
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    ca.issue_cert(name).configure_cert(tls)
    if asks:
        ca.configure_trust(tls)
        tls.verify_mode = ssl.CERT_REQUIRED
    at = urlsplit(to)
    passing: set[asyncio.Task[None]] = set()

    async def enter(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner = await asyncio.open_connection(at.hostname, at.port)
        for ends in ((reader, inner[1]), (inner[0], writer)):
            passing.add(asyncio.create_task(_pass_on(*ends)))

    server = await asyncio.start_server(enter, "127.0.0.1", 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in passing:
            task.cancel()
        await asyncio.gather(*passing, return_exceptions=True)


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while octets := await reader.read(65_536):
            writer.write(octets)
            await writer.drain()
    writer.close()


def told(monkeypatch: pytest.MonkeyPatch, port: int, vhost: str, **files: str) -> str:
    """AMQP_URL as the settings make it of these variables."""
    monkeypatch.setenv("AMQP_URL", f"amqps://guest:guest@127.0.0.1:{port}/{vhost}")
    for name, path in files.items():
        monkeypatch.setenv(name, path)
    return load(AmqpSettings).amqp_url


async def test_all_that_speaks_amqp_verifies_with_the_ca_that_is_named(
    monkeypatch: pytest.MonkeyPatch,
    ca: trustme.CA,
    amqp_url: str,
    vhost: str,
    files: dict[str, str],
):
    """Link, looks, declarations and the handshake; with our certificate, which this one wants."""
    async with door(ca, amqp_url, asks=True) as port:
        url = told(monkeypatch, port, vhost, **files)
        async with Link(url, "tls") as link:
            assert link.connected
        async with await Admin.open(url) as admin:
            await admin.declare_queue("pf.tls", {})
        async with open_looks(url) as looks:
            assert await looks.depths(["pf.tls"])
        await asyncio.to_thread(check, url)

        alone = told(monkeypatch, port, vhost, AMQP_CERT_FILE="", AMQP_KEY_FILE="")
        with pytest.raises(BrokerError):  # TLS 1.3 says why only if it is read before the end
            async with Link(alone, "no certificate", patience_s=0.1):
                pass


@pytest.mark.parametrize("wrong", ["ca", "name"])
async def test_a_broker_that_is_not_the_one_named_is_refused_at_once(
    monkeypatch: pytest.MonkeyPatch,
    ca: trustme.CA,
    amqp_url: str,
    files: dict[str, str],
    wrong: str,
):
    """Another CA's certificate, or one for another host: one sentence, and no second try."""
    other = trustme.CA() if wrong == "ca" else ca
    name = "127.0.0.1" if wrong == "ca" else "other.example"
    async with door(other, amqp_url, name=name) as port:
        url = told(monkeypatch, port, "any", **files)
        with pytest.raises(BrokerError, match="certificate that is not good"):
            async with asyncio.timeout(60), Link(url, "wrong", patience_s=600):
                pass
        with pytest.raises(BrokerError, match="certificate that is not good"):
            await Admin.open(url)


async def test_the_management_api_is_verified_with_the_same_ca(
    monkeypatch: pytest.MonkeyPatch,
    ca: trustme.CA,
    broker: RunningBroker,
    vhost: str,
    files: dict[str, str],
):
    """With it the API answers; without it, or under another name, it is refused."""
    assert broker.management_url is not None
    async with door(ca, broker.management_url) as port:
        url = told(monkeypatch, 1, vhost, **files)
        known = management_url(url, f"https://127.0.0.1:{port}")
        assert known is not None
        assert "administrator" in (await survey(known, vhost)).tags
        with pytest.raises(BrokerError, match="certificate that is not good"):
            await survey(f"https://guest:guest@127.0.0.1:{port}", vhost)


def test_files_for_a_plain_address_are_refused(
    monkeypatch: pytest.MonkeyPatch, files: dict[str, str]
):
    """Who names a CA believes that all is encrypted; a file that is not there is named."""
    monkeypatch.setenv("AMQP_URL", "amqp://127.0.0.1/")
    monkeypatch.setenv("AMQP_CA_FILE", files["AMQP_CA_FILE"])
    with pytest.raises(SettingsError, match="amqps://"):
        load(AmqpSettings)
    monkeypatch.setenv("AMQP_CA_FILE", "/none.pem")
    with pytest.raises(SettingsError, match="AMQP_CA_FILE is wrong"):
        load(AmqpSettings)
