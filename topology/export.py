"""The plan as definitions that a broker loads at boot."""

from __future__ import annotations

from typing import Any

from topology.model import Plan


def definitions(plan: Plan, vhost: str = "/") -> dict[str, Any]:
    """The content of a `definitions.json` for RabbitMQ 3.10 and later, one virtual host.

    Without users, for importing any switches the default guest off; and so without permissions,
    which cannot be given to a user that is not there.
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
