"""The plan as definitions that a broker loads at boot."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

from topology.model import Plan


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


def with_user(definitions: dict[str, Any], name: str, password: str, salt: bytes) -> dict[str, Any]:
    """The definitions with a user who may do everything in their virtual host.

    A broker whose first boot loads definitions makes no guest of its own, whatever is in them, so
    without a user nobody could come in. The password is a hash under 4 bytes of `salt`.
    """
    digest = hashlib.sha256(salt + password.encode()).digest()
    user = {
        "name": name,
        "password_hash": base64.b64encode(salt + digest).decode(),
        "hashing_algorithm": "rabbit_password_hashing_sha256",
        "tags": "administrator",
    }
    everything = {"configure": ".*", "write": ".*", "read": ".*"}
    permissions = [
        {"user": name, "vhost": vhost["name"], **everything} for vhost in definitions["vhosts"]
    ]
    return {"users": [user], "permissions": permissions, **definitions}
