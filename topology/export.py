"""The plan as definitions that a broker loads at boot."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Iterable, Mapping
from typing import Any, Final

from topology.model import Plan
from topology.users import User

_EVERYTHING: Final = ".*"


def definitions(plan: Plan, vhost: str = "/") -> dict[str, Any]:
    """The content of a `definitions.json` for RabbitMQ 3.10 and later, one virtual host.

    It has no users: loaded into a running broker, or at boot into one that has been used before,
    it leaves those there alone. See `with_user` for a broker's first boot.
    """
    lasting = {"vhost": vhost, "durable": True, "auto_delete": False}
    return {
        "vhosts": [{"name": vhost}],
        "exchanges": [
            {
                "name": each.name,
                "type": each.kind,
                **lasting,
                "internal": False,
                "arguments": dict(each.arguments),
            }
            for each in plan.exchanges
        ],
        "queues": [
            {"name": each.name, **lasting, "arguments": dict(each.arguments)}
            for each in plan.queues
        ],
        "bindings": [
            {
                "source": each.source,
                "vhost": vhost,
                "destination": each.destination,
                "destination_type": each.to,
                "routing_key": each.key,
                "arguments": dict(each.arguments),
            }
            for each in plan.bindings
        ],
    }


def with_user(definitions: dict[str, Any], name: str, password: str) -> dict[str, Any]:
    """The definitions with an administrator who may do everything in their virtual host.

    A broker whose first boot loads definitions makes no guest of its own, whatever is in them, so
    without a user nobody could come in.
    """
    everything = (_EVERYTHING, _EVERYTHING, _EVERYTHING)
    return _with(definitions, _user(name, password, "administrator"), everything)


def with_users(
    definitions: dict[str, Any], users: Iterable[User], passwords: Mapping[str, str]
) -> dict[str, Any]:
    """The definitions with these users, each with its permissions in their virtual host."""
    for user in users:
        granted = (user.configure, user.write, user.read)
        definitions = _with(definitions, _user(user.name, passwords[user.name], user.tag), granted)
    return definitions


def _with(
    definitions: dict[str, Any], user: dict[str, str], granted: tuple[str, str, str]
) -> dict[str, Any]:
    configure, write, read = granted
    permissions = [
        {
            "user": user["name"],
            "vhost": vhost["name"],
            "configure": configure,
            "write": write,
            "read": read,
        }
        for vhost in definitions["vhosts"]
    ]
    return {
        **definitions,
        "users": [*definitions.get("users", ()), user],
        "permissions": [*definitions.get("permissions", ()), *permissions],
    }


def _user(name: str, password: str, tags: str) -> dict[str, str]:
    """A user as RabbitMQ stores it: 4 random bytes, and SHA-256 of them and the password."""
    salt = os.urandom(4)
    digest = hashlib.sha256(salt + password.encode()).digest()
    return {
        "name": name,
        "password_hash": base64.b64encode(salt + digest).decode(),
        "hashing_algorithm": "rabbit_password_hashing_sha256",
        "tags": tags,
    }
