"""What the management API knows of a virtual host's layout."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

import aiohttp
from yarl import URL

from fleet.amqp.reasons import parse
from fleet.core.errors import BrokerError

_USUAL: Final = {"amqp": (5672, "http", 15672), "amqps": (5671, "https", 15671)}
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


def management_url(amqp_url: str, given: str | None) -> str | None:
    """Where the management API is: as given, else on the usual port beside the usual AMQP port.

    With the AMQP user where none is given. None where only a guess would be left. Raises
    BrokerError where an address is none.
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
    return str(url)


async def look(url: str, vhost: str, *, timeout_s: float = 10.0) -> Broker:
    """Read the whole layout of a virtual host as the user in `url`.

    Raises BrokerError where it cannot be read.
    """
    address = _parse(url)
    secret = base64.b64encode(f"{address.user}:{address.password}".encode()).decode()
    headers = {"Authorization": f"Basic {secret}"}
    timeout = aiohttp.ClientTimeout(total=timeout_s)
    async with aiohttp.ClientSession(headers=headers, timeout=timeout) as session:
        base = address.with_user(None)
        exchanges = await _get(session, base, "exchanges", vhost)
        # Without statistics the answer is read afresh, not from a cache some seconds old.
        queues = await _get(session, base, "queues", vhost, disable_stats="true")
        return Broker(exchanges, queues, await _get(session, base, "bindings", vhost))


async def _get(
    session: aiohttp.ClientSession, base: URL, what: str, vhost: str, **query: str
) -> tuple[Found, ...]:
    where = f"The management API at {base.host}:{base.port}"
    path = f"{base.raw_path.rstrip('/')}/api/{what}/{quote(vhost, safe='')}"
    address = base.with_path(path, encoded=True).with_query(query)
    try:
        async with session.get(address, allow_redirects=False) as answer:
            if answer.status != 200:  # noqa: PLR2004 - HTTP's own number
                trouble = _ANSWERS.get(answer.status, f"answers {answer.status}")
                raise BrokerError(f"{where} {trouble}; correct MANAGEMENT_URL or AMQP_URL.")
            return _objects(await answer.json())
    except (aiohttp.ClientError, OSError, ValueError) as error:
        trouble = "does not answer in time" if isinstance(error, TimeoutError) else "is not there"
        raise BrokerError(f"{where} {trouble}; enable it or correct MANAGEMENT_URL.") from None


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
