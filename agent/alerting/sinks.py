"""Sinks: places outside of the fleet that are told of an alert."""

from __future__ import annotations

import hashlib
import hmac
import importlib
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias

import msgspec

from agent.alerting.settings import AlertSettings
from fleet.core.errors import ApiError, NetworkError, RefusedError, SettingsError
from fleet.core.payloads import AlertRaised

if TYPE_CHECKING:
    import aiohttp

TIMEOUT_S: Final = 10.0
_WAIT: Final = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS})


class Sink(Protocol):
    """One place. It may be told twice of an alert (an answer was lost), with the same id."""

    async def send(self, alert: AlertRaised, alert_id: str) -> None:
        """Tell it. Raises NetworkError or ApiError to be tried again, RefusedError for never."""
        ...


Sinks: TypeAlias = Mapping[str, Sink]
"""By name: `webhook`, `apprise.0`, `apprise.1`, …"""


class Webhook:
    """A POST of the alert as JSON, with its id as Idempotency-Key.

    With a secret it is signed: `X-Fleet-Signature: sha256=` and the hex HMAC-SHA256 of the body.
    """

    def __init__(self, session: aiohttp.ClientSession, url: str, secret: str) -> None:
        self._session = session
        self._url = url
        self._secret = secret.encode()

    async def send(self, alert: AlertRaised, alert_id: str) -> None:
        """Post it once."""
        body = msgspec.json.encode({"id": alert_id, **msgspec.to_builtins(alert)})
        from aiohttp import ClientError  # noqa: PLC0415 - as in open_sinks

        headers = {"Content-Type": "application/json", "Idempotency-Key": alert_id}
        if self._secret:
            digest = hmac.new(self._secret, body, hashlib.sha256).hexdigest()
            headers["X-Fleet-Signature"] = f"sha256={digest}"
        try:
            async with self._session.post(
                self._url, data=body, headers=headers, allow_redirects=False
            ) as response:
                status = response.status
        # The address may hold a token: neither it nor the error's text is repeated.
        except (ClientError, TimeoutError, OSError, ValueError) as error:
            raise NetworkError(f"no answer from the webhook: {type(error).__name__}") from None
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status in _WAIT:
            raise ApiError(f"the webhook answered {status}")
        if status >= HTTPStatus.MULTIPLE_CHOICES:
            raise RefusedError(f"the webhook answered {status}")


class Notifier:
    """One address of Apprise: mail, chat, pager, and whatever else it reaches.

    Raises SettingsError where it is no address that Apprise knows.
    """

    def __init__(self, library: Any, url: str, number: int) -> None:
        self._target = library.Apprise()
        self._name = f"apprise.{number}"
        if not self._target.add(url):
            raise SettingsError(f"Address {number + 1} in APPRISE_URLS is none that Apprise knows.")

    async def send(self, alert: AlertRaised, alert_id: str) -> None:
        """Notify it once."""
        lines = filter(None, (alert.detail, alert.runbook, alert_id))
        kind = {"info": "info", "warning": "warning", "critical": "failure"}[alert.severity]
        told = await self._target.async_notify(
            title=f"{alert.severity}: {alert.title}", body="\n".join(lines), notify_type=kind
        )
        if not told:
            raise NetworkError(f"{self._name} could not be told")


@asynccontextmanager
async def open_sinks(settings: AlertSettings) -> AsyncIterator[Sinks]:
    """The sinks that are set, with a session of their own. Raises SettingsError for a wrong one."""
    sinks: dict[str, Sink] = {}
    urls = settings.apprise()
    library = _apprise() if urls else None
    for number, url in enumerate(urls):
        sinks[f"apprise.{number}"] = Notifier(library, url, number)
    webhook = settings.webhook_url.get_secret_value()
    async with AsyncExitStack() as stack:
        if webhook:
            session = await stack.enter_async_context(_session())
            secret = settings.webhook_secret.get_secret_value()
            sinks["webhook"] = Webhook(session, webhook, secret)
        yield sinks


def _session() -> aiohttp.ClientSession:
    import aiohttp  # noqa: PLC0415 - 11 MB that who has no webhook does not need

    timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
    return aiohttp.ClientSession(timeout=timeout, cookie_jar=aiohttp.DummyCookieJar())


def _apprise() -> Any:
    try:
        return importlib.import_module("apprise")
    except ImportError:
        raise SettingsError(
            "APPRISE_URLS is set, but Apprise is not installed; install flea-fleet[alerts]."
        ) from None
