"""A private RabbitMQ in a container of its own."""

from __future__ import annotations

import secrets
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from fleet.broker import ports
from fleet.broker.config import ADVANCED
from fleet.broker.guarded import Guard
from fleet.broker.running import RunningBroker, await_ready
from fleet.core.errors import BrokerError

ANSWER = 15.0  # seconds that an engine may take to say that it is there
PULL = 600.0
COMMAND = 120.0


class DockerBroker(RunningBroker):
    """A container with fixed ports on 127.0.0.1, removed with its volume at the end."""

    kind = "docker"

    def __init__(self, image: str, *, timeout: float = 90.0) -> None:
        self._image = image
        self._timeout = timeout
        self._name = f"fleet-broker-{secrets.token_hex(4)}"
        self._amqp, self._management = ports.free(2)
        self._guard: Guard | None = None
        self.amqp_url = f"amqp://guest:guest@127.0.0.1:{self._amqp}/"
        self.management_url = f"http://127.0.0.1:{self._management}"

    def start(self) -> DockerBroker:
        """Start the container and wait until it serves; raises BrokerError, and nothing is left."""
        try:
            self._guard = Guard(last=[["docker", "rm", "-f", "-v", self._name]])
            self._create()
            self._serve("start")
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Remove the container and its data."""
        if self._guard:
            self._guard.end()
            self._guard = None

    def kill(self) -> None:
        """SIGKILL the container; nothing is flushed."""
        docker("kill", self._name)

    def restart(self) -> None:
        """Start it again on the same data and ports."""
        self._serve("restart")

    def _create(self) -> None:
        published = (
            ("-p", f"127.0.0.1:{self._amqp}:5672"),
            ("-p", f"127.0.0.1:{self._management}:15672"),
        )
        flags = [word for pair in published for word in pair]
        # The node's name, and with it its data's path, comes from the host name.
        docker("create", "--name", self._name, "--hostname", "fleet", *flags, self._image)
        with tempfile.TemporaryDirectory() as folder:
            # Copied, not mounted: an engine may see no folder of this machine.
            advanced = Path(folder, "advanced.config")
            advanced.write_text(ADVANCED)
            advanced.chmod(0o644)
            docker("cp", str(advanced), f"{self._name}:/etc/rabbitmq/advanced.config")

    def _serve(self, verb: str) -> None:
        docker(verb, self._name)
        self.version = await_ready(self.amqp_url, self.management(), self._timeout, self._running)

    def _running(self) -> bool:
        return docker("inspect", "-f", "{{.State.Running}}", self._name).strip() == "true"


def docker(*words: str, timeout: float = COMMAND) -> str:
    """What `docker words…` prints; raises BrokerError with the last line of its complaint."""
    argv = ["docker", *words]
    try:
        done = subprocess.run(  # noqa: S603 - our own words, no shell
            argv,
            check=False,
            capture_output=True,
            text=True,
            timeout=timeout,
            stdin=subprocess.DEVNULL,
        )
    except FileNotFoundError:
        raise BrokerError("There is no docker command here: install Docker.") from None
    except subprocess.TimeoutExpired:
        raise BrokerError(f"docker {words[0]} did not end within {timeout:.0f} s.") from None
    if done.returncode:
        complaint = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise BrokerError(f"docker {words[0]} failed: {complaint.rstrip(' .')}.")
    return done.stdout


def answers() -> bool:
    """Whether a Docker engine can be used from here."""
    try:
        docker("info", "-f", "{{.ServerVersion}}", timeout=ANSWER)
    except BrokerError:
        return False
    return True


def ensure_image(image: str, say: Callable[[str], None]) -> None:
    """`image` is here, pulled if need be; raises BrokerError where it cannot be had."""
    try:
        docker("image", "inspect", "-f", "ok", image)
    except BrokerError:
        say(f"Pulling the Docker image {image}.")
        docker("pull", "-q", image, timeout=PULL)
