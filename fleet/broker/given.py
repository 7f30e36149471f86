"""A broker that somebody else runs."""

from __future__ import annotations

from urllib.parse import urlsplit

from fleet.broker.handshake import Address, check
from fleet.broker.management import Management
from fleet.broker.running import RunningBroker
from fleet.core.errors import BrokerError

MANAGEMENT_PORT = 15672
PATIENCE = 3.0  # seconds for a management API that may not be there


class GivenBroker(RunningBroker):
    """The broker at `amqp_url`, checked; raises BrokerError where it cannot be used.

    Without `management_url`, port 15672 of the same host is tried with the same user.
    """

    kind = "given"

    def __init__(self, amqp_url: str, management_url: str | None = None) -> None:
        self.amqp_url = amqp_url
        self.version = check(amqp_url)
        host = Address.parse(amqp_url).host
        self.management_url = management_url or _guessed(host, amqp_url)
        if management_url:
            _refuse_odd(management_url)
            self.management().get("overview")

    def stop(self) -> None:
        """Leave it running: it is not ours."""

    def kill(self) -> None:
        """Never: it is not ours."""
        raise BrokerError("The broker of AMQP_URL is not ours to kill.")

    def restart(self) -> None:
        """Never: it is not ours."""
        raise BrokerError("The broker of AMQP_URL is not ours to restart.")


def _guessed(host: str, amqp_url: str) -> str | None:
    bracketed = f"[{host}]" if ":" in host else host
    url = f"http://{bracketed}:{MANAGEMENT_PORT}"
    try:
        Management(url, amqp_url, timeout=PATIENCE).get("overview")
    except BrokerError:
        return None
    return url


def _refuse_odd(url: str) -> None:
    try:
        parts = urlsplit(url)
        odd = parts.scheme not in {"http", "https"} or not parts.hostname or parts.port == 0
    except ValueError:
        odd = True
    if odd:
        raise BrokerError("MANAGEMENT_URL cannot be read: write it as http://host:15672.")
