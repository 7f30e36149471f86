"""An AMQP 0-9-1 handshake over a plain socket: a broker is there, and lets us in."""

from __future__ import annotations

import socket
import ssl
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from pamqp import commands, exceptions, frame
from pamqp.header import ProtocolHeader

from fleet.core.errors import BrokerError
from fleet.settings import addresses

PORTS = {"amqp": 5672, "amqps": 5671}
HEADER = 7  # octets: type, channel, size


@dataclass(frozen=True)
class Address:
    """The parts of an AMQP URL; `str` and `repr` show no password."""

    host: str
    port: int
    user: str
    password: str = field(repr=False)
    vhost: str
    tls: ssl.SSLContext | None = field(repr=False)

    @classmethod
    def parse(cls, url: str) -> Address:
        """Read `amqp://user:password@host:port/vhost`, the first of several; raises BrokerError."""
        try:
            parts = urlsplit(addresses(url)[0])
            port = parts.port
        except ValueError:
            raise BrokerError(f"AMQP_URL cannot be read: {WANTED}") from None
        if parts.scheme not in PORTS or not parts.hostname:
            raise BrokerError(f"AMQP_URL is no broker's address: {WANTED}")
        return cls(
            host=parts.hostname,
            port=port or PORTS[parts.scheme],
            user=unquote(parts.username or "guest"),
            password=unquote(parts.password or "guest"),
            vhost=unquote(parts.path[1:]) or "/",
            tls=_tls(parts),
        )

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


WANTED = "write it as amqp://user:password@host:5672/vhost."


def _tls(parts: SplitResult) -> ssl.SSLContext | None:
    if parts.scheme != "amqps":
        return None
    named = dict(parse_qsl(parts.query))
    try:
        tls = ssl.create_default_context(cafile=named.get("cafile"))
        if "certfile" in named:
            tls.load_cert_chain(named["certfile"], named.get("keyfile"))
    except OSError:
        raise BrokerError("The cafile in AMQP_URL cannot be read: name a PEM file.") from None
    return tls


def check(url: str, timeout: float = 10.0) -> str:
    """Log in, open the virtual host, leave; the broker's version.

    `timeout` is in seconds for each step. Raises BrokerError, one sentence without the password.
    """
    at = Address.parse(url)
    try:
        with _connect(at, timeout) as sock:
            return _shake(sock, at)
    except TimeoutError:
        raise BrokerError(f"The broker at {at} does not answer: check AMQP_URL.") from None
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise BrokerError(f"No broker can be reached at {at} ({reason}): check AMQP_URL.") from None


def _connect(at: Address, timeout: float) -> socket.socket:
    sock = socket.create_connection((at.host, at.port), timeout)
    if at.tls is None:
        return sock
    try:
        return at.tls.wrap_socket(sock, server_hostname=at.host)
    except BaseException:
        sock.close()
        raise


def _shake(sock: socket.socket, at: Address) -> str:
    sock.sendall(ProtocolHeader().marshal())
    start = _expect(sock, commands.Connection.Start, at)
    _send(sock, commands.Connection.StartOk({"product": "fleet"}, response=_plain(at)))
    # A broker that refuses the password just hangs up, unless the client says that it can be told.
    tune = _expect(sock, commands.Connection.Tune, at, f"refuses user {at.user!r}")
    _send(sock, commands.Connection.TuneOk(tune.channel_max, tune.frame_max, 0))
    _send(sock, commands.Connection.Open(at.vhost))
    _expect(sock, commands.Connection.OpenOk, at, f"lets {at.user!r} into no vhost {at.vhost!r}")
    _send(sock, commands.Connection.Close(200, "checked", 0, 0))
    version = start.server_properties.get("version", "unknown")
    return version.decode() if isinstance(version, bytes) else str(version)


def _plain(at: Address) -> str:
    return f"\0{at.user}\0{at.password}"


def _send(sock: socket.socket, method: Any) -> None:
    sock.sendall(frame.marshal(method, 0))


def _expect(sock: socket.socket, wanted: type, at: Address, refusal: str = "") -> Any:
    got = _read(sock, at, refusal)
    if not isinstance(got, wanted):
        said = refusal or "answers with something unexpected"
        raise BrokerError(f"The broker at {at} {said}: check AMQP_URL.")
    return got


def _read(sock: socket.socket, at: Address, refusal: str) -> Any:
    head = _exactly(sock, HEADER)
    size = int.from_bytes(head[3:7], "big")
    if head[:1] != b"\x01" or size > 2**20:
        raise BrokerError(f"What answers at {at} does not speak AMQP 0-9-1: check AMQP_URL.")
    body = _exactly(sock, size + 1) if head else b""
    if not body:
        said = refusal or "hangs up"
        raise BrokerError(f"The broker at {at} {said}: check AMQP_URL.")
    try:
        return frame.unmarshal(head + body)[2]
    except exceptions.UnmarshalingException:
        raise BrokerError(f"What answers at {at} speaks no AMQP: check AMQP_URL.") from None


def _exactly(sock: socket.socket, size: int) -> bytes:
    """`size` octets, or none where the other side hung up."""
    data = b""
    while len(data) < size:
        more = sock.recv(size - len(data))
        if not more:
            return b""
        data += more
    return data
