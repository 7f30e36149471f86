"""The files that a private RabbitMQ node is started with."""

from __future__ import annotations

import json
import secrets
from dataclasses import asdict, dataclass
from pathlib import Path

from fleet.broker import ports

# At-least-once dead-lettering that lost its confirm stalls until this timer: 180 s by default.
ADVANCED = "[{rabbit, [{dead_letter_worker_publisher_confirm_timeout, 5000}]}].\n"
PLUGINS = "[rabbitmq_management, rabbitmq_prometheus].\n"
INETRC = '{lookup, [file]}.\n{host, {127,0,0,1}, ["localhost"]}.\n'
CONF = """\
listeners.tcp.1 = 127.0.0.1:{amqp}
management.tcp.ip = 127.0.0.1
management.tcp.port = {management}
prometheus.tcp.ip = 127.0.0.1
prometheus.tcp.port = {prometheus}
loopback_users.guest = true
log.console = false
log.file.level = info
vm_memory_high_watermark.relative = 0.4
"""


@dataclass(frozen=True)
class Node:
    """A private node: its name and its ports, all on 127.0.0.1."""

    name: str
    amqp: int
    management: int
    prometheus: int
    distribution: int
    epmd: int

    @classmethod
    def new(cls) -> Node:
        """A node that no other one is called like, on ports free now."""
        return cls(f"fleet-{secrets.token_hex(4)}", *ports.free(5))

    @classmethod
    def of(cls, folder: Path) -> Node:
        """The node whose data is in `folder`, on its old ports if they are free; else a new one."""
        try:
            old = cls(**json.loads((folder / "node.json").read_text()))
        except (OSError, ValueError, TypeError):
            return cls.new()
        used = (old.amqp, old.management, old.prometheus, old.distribution, old.epmd)
        if all(ports.is_free(port) for port in used):
            return old
        return cls(old.name, *ports.free(5))

    def write(self, folder: Path) -> None:
        """Put every file that the node reads into `folder`."""
        texts = {
            "node.json": json.dumps(asdict(self)),
            "rabbitmq.conf": CONF.format(**asdict(self)),
            "advanced.config": ADVANCED,
            "enabled_plugins": PLUGINS,
            "inetrc": INETRC,
        }
        for name, text in texts.items():
            (folder / name).write_text(text)
        cookie = folder / ".erlang.cookie"
        if not cookie.exists():
            cookie.touch(0o600)
            cookie.write_text(secrets.token_hex(16))
            cookie.chmod(0o400)

    def environment(self, folder: Path) -> dict[str, str]:
        """The variables that keep the node inside `folder` and its own ports."""
        return {
            # `detached` makes the start script become the server instead of its parent.
            "detached": "true",
            "HOME": str(folder),
            "ERL_EPMD_PORT": str(self.epmd),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_INETRC": str(folder / "inetrc"),
            "RABBITMQ_NODENAME": f"{self.name}@localhost",
            "RABBITMQ_DIST_PORT": str(self.distribution),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
            "RABBITMQ_CONF_ENV_FILE": str(folder / "rabbitmq-env.conf"),
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
            "RABBITMQ_CONFIG_FILES": str(folder / "conf.d"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(folder / "advanced.config"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "enabled_plugins"),
            "RABBITMQ_GENERATED_CONFIG_DIR": str(folder / "generated"),
            "RABBITMQ_MNESIA_BASE": str(folder / "data"),
            "RABBITMQ_LOG_BASE": str(folder / "log"),
            "RABBITMQ_PID_FILE": str(folder / "pid"),
        }
