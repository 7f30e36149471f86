"""A small client of RabbitMQ's management API."""

from __future__ import annotations

import base64
import http.client
import json
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from fleet.broker.handshake import Address
from fleet.core.errors import BrokerError

NOT_FOUND = 404
REFUSED = 400


class Management:
    """Asks the management API at `url` (`http://host:port`) as the user of `amqp_url`.

    Where `url` names a user of its own, as that one.

    Raises BrokerError where it cannot be reached or refuses.
    """

    def __init__(self, url: str, amqp_url: str, timeout: float = 10.0) -> None:
        self._parts = urlsplit(url)
        self._at = self._parts.netloc.rpartition("@")[2]
        at = Address.parse(amqp_url)
        self._user, password, self._tls = at.user, at.password, at.tls
        if self._parts.username:
            self._user = unquote(self._parts.username)
            password = unquote(self._parts.password or "")
        secret = base64.b64encode(f"{self._user}:{password}".encode()).decode()
        self._headers = {"Authorization": f"Basic {secret}", "Content-Type": "application/json"}
        self._timeout = timeout

    def get(self, path: str) -> Any:
        """What the API says at `path` (under `/api/`), or None where there is nothing."""
        return self.call("GET", path)

    def create_vhost(self, name: str) -> None:
        """A virtual host in which this user may do everything."""
        self.call("PUT", f"vhosts/{_quoted(name)}", {})
        everything = {"configure": ".*", "write": ".*", "read": ".*"}
        self.call("PUT", f"permissions/{_quoted(name)}/{_quoted(self._user)}", everything)

    def delete_vhost(self, name: str) -> None:
        """No such virtual host any more; none before is as good."""
        self.call("DELETE", f"vhosts/{_quoted(name)}")

    def vhosts(self) -> list[str]:
        """The virtual hosts that this user may see, by name."""
        return [str(vhost["name"]) for vhost in self.get("vhosts") or []]

    def connections(self, vhost: str) -> int:
        """How many connections into `vhost` are open; a new one counts after up to 5 s."""
        return len(self.get(f"vhosts/{_quoted(vhost)}/connections") or [])

    def queues(self, vhost: str) -> list[dict[str, Any]]:
        """The queues of `vhost` as the API describes them; depths lag by up to 5 s."""
        return list(self.get(f"queues/{_quoted(vhost)}") or [])

    def call(self, method: str, path: str, body: object = None) -> Any:
        """One request; the decoded answer, or None where it is empty or nothing was found."""
        status, text = self._exchange(method, path, None if body is None else json.dumps(body))
        if status == NOT_FOUND:
            return None
        if status >= REFUSED:
            raise BrokerError(f"The management API refuses {method} {path} with status {status}.")
        return json.loads(text) if text else None

    def _exchange(self, method: str, path: str, body: str | None) -> tuple[int, bytes]:
        secure = self._parts.scheme == "https"
        connection = (
            http.client.HTTPSConnection(self._at, timeout=self._timeout, context=self._tls)
            if secure
            else http.client.HTTPConnection(self._at, timeout=self._timeout)
        )
        base = self._parts.path.rstrip("/")
        try:
            connection.request(method, f"{base}/api/{path}", body, self._headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        except (OSError, http.client.HTTPException):
            raise BrokerError(f"The management API at {self._at} does not answer.") from None
        finally:
            connection.close()


def _quoted(name: str) -> str:
    return quote(name, safe="")
