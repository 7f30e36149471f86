"""What the management API knows of a virtual host's layout."""

from __future__ import annotations

import base64
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

import aiohttp
from yarl import URL

from fleet.amqp.reasons import parse
from fleet.core.errors import BrokerError

_USUAL: Final = {"amqp": (5672, "http", 15672), "amqps": (5671, "https", 15671)}
_FINE: Final = frozenset({200, 201, 204})
_ANSWERS: Final = {
    401: "refuses the user",
    403: "refuses the user",
    404: "has no such virtual host, or is something else",
}

Found = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Broker:
    """The layout found, each object as the management API words it."""

    exchanges: tuple[Found, ...]
    queues: tuple[Found, ...]
    bindings: tuple[Found, ...]


@dataclass(frozen=True, slots=True)
class Access:
    """Who may do what in a virtual host."""

    tags: Mapping[str, str]
    """The tags of each user of the broker, with commas between."""
    permissions: Mapping[str, Found]
    """The patterns granted to each user in this virtual host."""


@dataclass(frozen=True, slots=True)
class Survey:
    """What the management API says of the broker itself."""

    user: str
    """Our user, as the management API knows us."""
    tags: str
    """Its tags, with commas between."""
    nodes: tuple[Found, ...] | None
    """The figures of each node; None where our user may not see them."""
    queues: tuple[Found, ...]
    """The virtual host's queues: their names, arguments and the policy that is in force."""
    date: str
    """The broker's clock, as HTTP says it; "" where it does not."""


def management_url(amqp_url: str, given: str | None) -> str | None:
    """Where the management API is: as given, else on the usual port beside the usual AMQP port.

    With the AMQP user where none is given, and with the CA that the AMQP address names. None where
    only a guess would be left. Raises BrokerError where an address is none.
    """
    amqp = parse(amqp_url)
    usual, scheme, port = _USUAL[amqp.scheme]
    if given:
        url = _parse(given)
    elif amqp.port in {None, usual}:
        url = URL.build(scheme=scheme, host=amqp.host or "", port=port)
    else:
        return None
    if url.user is None:
        url = url.with_user(amqp.user or "guest").with_password(amqp.password or "guest")
    if url.scheme == "https" and "cafile" in amqp.query:
        url = url.update_query(cafile=amqp.query["cafile"])
    return str(url)


async def look(url: str, vhost: str, *, timeout_s: float = 10.0) -> Broker:
    """Read the whole layout of a virtual host as the user in `url`.

    Raises BrokerError where it cannot be read.
    """
    async with _session(url, timeout_s) as (session, base):
        exchanges = await _get(session, base, f"exchanges/{_quoted(vhost)}")
        # Without statistics the answer is read afresh, not from a cache some seconds old.
        queues = await _get(session, base, f"queues/{_quoted(vhost)}", disable_stats="true")
        bindings = await _get(session, base, f"bindings/{_quoted(vhost)}")
        return Broker(exchanges, queues, bindings)


async def count(url: str, vhost: str, *, timeout_s: float = 10.0) -> dict[str, tuple[int, object]]:
    """The messages of each queue, those that consumers hold too; -1 where no figures are kept.

    With each goes something that is another one after each count: the broker counts every few
    seconds, and tells the same until then. Raises BrokerError where it cannot be read.
    """
    wanted = "name,messages,reductions,memory"
    async with _session(url, timeout_s) as (session, base):
        queues = await _get(session, base, f"queues/{_quoted(vhost)}", columns=wanted)
    return {
        each["name"]: (each.get("messages", -1), (each.get("reductions"), each.get("memory")))
        for each in queues
    }


async def weigh(url: str, vhost: str, *, timeout_s: float = 10.0) -> dict[str, int]:
    """The bytes of the bodies in each queue, as the broker counted them some seconds ago.

    Raises BrokerError where it cannot be read.
    """
    async with _session(url, timeout_s) as (session, base):
        wanted = "name,message_bytes"
        queues = await _get(session, base, f"queues/{_quoted(vhost)}", columns=wanted)
    return {each["name"]: int(each.get("message_bytes", 0)) for each in queues}


async def look_at_users(url: str, vhost: str, *, timeout_s: float = 10.0) -> Access:
    """Read who may do what in a virtual host, as the administrator in `url`.

    Raises BrokerError where it cannot be read.
    """
    async with _session(url, timeout_s) as (session, base):
        found = await _get(session, base, "users")
        granted = await _get(session, base, f"vhosts/{_quoted(vhost)}/permissions")
    return Access(
        tags={user["name"]: _tags(user["tags"]) for user in found},
        permissions={each["user"]: each for each in granted},
    )


async def survey(url: str, vhost: str, *, timeout_s: float = 10.0) -> Survey:
    """Read how the broker does, as the user in `url`.

    Raises BrokerError where it cannot be read.
    """
    wanted = "name,arguments,effective_policy_definition"
    async with _session(url, timeout_s) as (session, base):
        own, date = await _call(session, "GET", _at(base, "whoami"))
        tags = _tags(own["tags"])
        sees_nodes = {"administrator", "monitoring"} & set(tags.split(","))
        nodes = await _get(session, base, "nodes") if sees_nodes else None
        queues = await _get(session, base, f"queues/{_quoted(vhost)}", columns=wanted)
    return Survey(str(own["name"]), tags, nodes, queues, date)


async def load(url: str, definitions: Found, *, timeout_s: float = 30.0) -> None:
    """Have the broker take over these definitions, as the administrator in `url`.

    What they do not name stays as it is. Raises BrokerError where they are not taken.
    """
    async with _session(url, timeout_s) as (session, base):
        await _call(session, "POST", _at(base, "definitions"), body=dict(definitions))


@asynccontextmanager
async def _session(url: str, timeout_s: float) -> AsyncIterator[tuple[aiohttp.ClientSession, URL]]:
    address = _parse(url)
    secret = base64.b64encode(f"{address.user}:{address.password}".encode()).decode()
    headers = {"Authorization": f"Basic {secret}"}
    timeout = aiohttp.ClientTimeout(total=timeout_s)
    connector = aiohttp.TCPConnector(ssl=_tls(address))
    async with aiohttp.ClientSession(
        headers=headers, timeout=timeout, connector=connector
    ) as session:
        yield session, address.with_user(None).with_query(None)


def _tls(address: URL) -> ssl.SSLContext | bool:
    """What the certificate is verified with: the CA that the address names, or the machine's."""
    named = address.query.get("cafile")
    if named is None:
        return True
    try:
        return ssl.create_default_context(cafile=named)
    except OSError:
        raise BrokerError("AMQP_CA_FILE has no certificates; name a PEM file.") from None


async def _get(
    session: aiohttp.ClientSession, base: URL, what: str, **query: str
) -> tuple[Found, ...]:
    found, _ = await _call(session, "GET", _at(base, what).with_query(query))
    return _objects(found)


def _at(base: URL, what: str) -> URL:
    return base.with_path(f"{base.raw_path.rstrip('/')}/api/{what}", encoded=True)


async def _call(
    session: aiohttp.ClientSession, method: str, address: URL, body: object = None
) -> tuple[Any, str]:
    """What was answered, and when by the other's clock."""
    where = f"The management API at {address.host}:{address.port}"
    try:
        async with session.request(method, address, json=body, allow_redirects=False) as answer:
            if answer.status not in _FINE:
                trouble = _ANSWERS.get(answer.status, f"answers {answer.status}")
                raise BrokerError(f"{where} {trouble}; correct MANAGEMENT_URL or AMQP_URL.")
            found = await answer.json() if method == "GET" else None
            return found, answer.headers.get("Date", "")
    except (aiohttp.ClientError, OSError, ValueError) as error:
        if isinstance(error, aiohttp.ClientConnectorCertificateError):
            raise BrokerError(
                f"{where} shows a certificate that is not good; name its CA in AMQP_CA_FILE, and"
                " the host as the certificate does."
            ) from None
        trouble = "does not answer in time" if isinstance(error, TimeoutError) else "is not there"
        raise BrokerError(f"{where} {trouble}; enable it or correct MANAGEMENT_URL.") from None


def _tags(found: object) -> str:
    """Since 3.9 a list, before that a text with commas."""
    return ",".join(map(str, found)) if isinstance(found, list) else str(found)


def _quoted(name: str) -> str:
    return quote(name, safe="")


def _objects(answer: Any) -> tuple[Found, ...]:
    if not isinstance(answer, list) or not all(isinstance(each, dict) for each in answer):
        raise ValueError("no list of objects")
    return tuple(answer)


def _parse(url: str) -> URL:
    trouble = "MANAGEMENT_URL is no address; write http://user:password@host:15672."
    try:
        parsed = URL(url)
        fine = parsed.scheme in {"http", "https"} and bool(parsed.host) and parsed.port
    except ValueError:
        raise BrokerError(trouble) from None
    if not fine:
        raise BrokerError(trouble)
    return parsed
