"""What every test can ask for: a broker, a virtual host of its own, the recorded tapes.

One broker serves the whole run. With xdist the controller owns it and lends its addresses to the
workers, because a worker may be done, and gone, while the others still need the broker.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import uuid
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import structlog
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings

from fleet.broker import BrokerSettings, Management, RunningBroker, provide
from fleet.broker.choose import private
from fleet.broker.given import GivenBroker
from fleet.broker.running import await_ready
from fleet.core.errors import BrokerError
from fleet.settings import load
from fleet.store import Settled, Store, open_store
from tests import postgres as postgresql

# How fast this machine is today is no property of the code.
# Where a change is judged the examples are the same each time; where one works they are new ones.
hypothesis_settings.register_profile(
    "fleet",
    deadline=None,
    derandomize="CI" in os.environ,
    suppress_health_check=[HealthCheck.too_slow],
)
hypothesis_settings.load_profile("fleet")

ROOT = Path(__file__).parent.parent
KINDS = ("given", "docker", "local", "testcontainers")
STORES = ("sqlite", "postgresql")
MARKED = ("integration", "chaos", "e2e", "compose")


class ContainerBroker(RunningBroker):
    """A broker that testcontainers runs."""

    kind = "testcontainers"

    def __init__(self, image: str, timeout: float) -> None:
        # There is no clean-up container where no registry can be reached; `stop` does its work.
        os.environ.setdefault("TESTCONTAINERS_RYUK_DISABLED", "true")
        with warnings.catch_warnings():
            # The library's own deprecations are not this project's to mend.
            warnings.simplefilter("ignore")
            from testcontainers.core.container import DockerContainer  # noqa: PLC0415 - takes a second

            advanced = ROOT / "deploy/rabbitmq/advanced.config"
            self._container = DockerContainer(image).with_exposed_ports(5672, 15672)
            self._container.with_volume_mapping(str(advanced), "/etc/rabbitmq/advanced.config")
            self._container.start()
        try:
            self._await(timeout)
        except BaseException:
            self.stop()
            raise

    def _await(self, timeout: float) -> None:
        """Its own module's readiness needs one more AMQP client; ours is a real handshake too."""
        host = self._container.get_container_host_ip()
        amqp, management = (self._container.get_exposed_port(port) for port in (5672, 15672))
        self.amqp_url = f"amqp://guest:guest@{host}:{amqp}/"
        self.management_url = f"http://{host}:{management}"
        wrapped = self._container.get_wrapped_container()

        def alive() -> bool:
            wrapped.reload()
            return bool(wrapped.status == "running")

        self.version = await_ready(self.amqp_url, self.management(), timeout, alive)

    def stop(self) -> None:
        """Remove the container."""
        self._container.stop()

    def kill(self) -> None:
        """Never: others use it."""
        raise BrokerError("Tests that kill a broker ask for `fresh_broker`.")

    def restart(self) -> None:
        """Never: others use it."""
        raise BrokerError("Tests that restart a broker ask for `fresh_broker`.")


class Shared:
    """The run's one broker, started when the first test asks for it."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._lock = threading.Lock()
        self._broker: RunningBroker | None = None
        self._server: socket.socket | None = None

    def get(self) -> RunningBroker:
        """The broker, started by the first call."""
        with self._lock:
            if self._broker is None:
                self._broker = _start(self._config)
            return self._broker

    def port(self) -> int:
        """Where the workers ask for the broker's addresses."""
        if self._server is None:
            self._server = socket.create_server(("127.0.0.1", 0))
            threading.Thread(target=self._lend, args=(self._server,), daemon=True).start()
        return int(self._server.getsockname()[1])

    def _lend(self, server: socket.socket) -> None:
        while True:
            try:
                client, _ = server.accept()
            except OSError:  # closed: the run is over
                return
            with client:
                client.sendall(json.dumps(self._answer()).encode())

    def _answer(self) -> dict[str, Any]:
        try:
            broker = self.get()
        except Exception as error:  # noqa: BLE001 - the worker reports it in our place
            return {"error": str(error)}
        return {"urls": [broker.amqp_url, broker.management_url], "kind": broker.kind}

    def close(self) -> None:
        """Stop what was started."""
        if self._server:
            self._server.close()
        with self._lock:
            if self._broker:
                self._broker.stop()
                self._broker = None


def _start(config: pytest.Config) -> RunningBroker:
    kind, settings = config.getoption("--broker"), _settings(config)
    if kind == "testcontainers":
        return ContainerBroker(settings.image, settings.start_timeout)
    if kind == "given":
        if settings.amqp_url is None:
            raise BrokerError("--broker given needs AMQP_URL.")
        return GivenBroker(settings.amqp_url.get_secret_value(), settings.management_url)
    if kind in ("docker", "local"):
        return private(settings, kind=kind)
    return provide(settings)


def _settings(config: pytest.Config) -> BrokerSettings:
    image = config.getoption("--broker-image")
    return load(BrokerSettings).model_copy(update={"image": image} if image else {})


def _borrow(port: int) -> RunningBroker:
    """The controller's broker, in a worker."""
    with socket.create_connection(("127.0.0.1", port)) as server, server.makefile() as stream:
        answer = json.load(stream)
    if "error" in answer:
        raise BrokerError(answer["error"])
    broker = GivenBroker(*answer["urls"])
    broker.kind = answer["kind"]
    return broker


SHARED = pytest.StashKey[Shared]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let the command line say where RabbitMQ comes from."""
    group = parser.getgroup("flea fleet")
    group.addoption(
        "--broker",
        choices=KINDS,
        help="where RabbitMQ comes from (default: FLEET_BROKER, else AMQP_URL, else Docker, "
        "else a local server)",
    )
    group.addoption(
        "--store",
        choices=STORES,
        default="sqlite",
        help="the store that the tests run over (PostgreSQL: FLEET_POSTGRES_URL, else Docker, "
        "else a local one)",
    )
    group.addoption("--broker-image", help="the RabbitMQ image for docker and testcontainers")


def pytest_configure(config: pytest.Config) -> None:
    """The controller, or the only process, owns the broker."""
    if not hasattr(config, "workerinput"):
        config.stash[SHARED] = Shared(config)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell an xdist worker where to ask for the broker."""
    node.workerinput["broker_port"] = node.config.stash[SHARED].port()


def pytest_unconfigure(config: pytest.Config) -> None:
    """Nothing of the run's is left running."""
    if SHARED in config.stash:
        config.stash[SHARED].close()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test's folder is its marker."""
    tests = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(tests):
            folder = item.path.relative_to(tests).parts[0]
            if folder in MARKED:
                item.add_marker(folder)


@pytest.fixture(autouse=True)
def _own_log() -> Iterator[None]:
    """A command that a test calls configures the log of the process: not for the tests after it."""
    yield
    structlog.reset_defaults()


@pytest.fixture(scope="session")
def broker(request: pytest.FixtureRequest) -> RunningBroker:
    """The broker that all tests share: never kill it, and stay in a vhost of your own."""
    worker = getattr(request.config, "workerinput", None)
    if worker is None:
        return request.config.stash[SHARED].get()
    return _borrow(worker["broker_port"])


@pytest.fixture(scope="session")
def management(broker: RunningBroker) -> Management:
    """A client of the shared broker's management API."""
    assert broker.management_url is not None
    # A virtual host goes with forty queues, each of which a busy disk has to forget.
    return Management(broker.management_url, broker.amqp_url, timeout=120.0)


@pytest.fixture
def vhost(management: Management) -> Iterator[str]:
    """A virtual host for one test, removed with all that is in it."""
    name = f"test-{uuid.uuid4().hex[:12]}"
    management.create_vhost(name)
    yield name
    management.delete_vhost(name)


@pytest.fixture
def amqp_url(broker: RunningBroker, vhost: str) -> str:
    """The URL of this test's own virtual host."""
    return f"{broker.amqp_url.rpartition('/')[0]}/{quote(vhost, safe='')}"


@pytest.fixture
def fresh_broker(request: pytest.FixtureRequest, broker: RunningBroker) -> Iterator[RunningBroker]:
    """A broker for one test, of the shared one's kind, which it may kill and restart."""
    in_docker = broker.kind in ("docker", "testcontainers")
    settings = _settings(request.config)
    kind = "docker" if in_docker else "local" if broker.kind == "local" else settings.kind
    with private(settings, kind=kind) as own:
        yield own


@pytest.fixture(scope="session")
def postgres() -> Iterator[postgresql.Postgres]:
    """The PostgreSQL that all tests of this process share: never kill it."""
    server = postgresql.provide()
    yield server
    server.stop()


@pytest.fixture
def fresh_postgres() -> Iterator[postgresql.Postgres]:
    """A PostgreSQL for one test, which it may kill and start."""
    server = postgresql.private()
    yield server
    server.stop()


@pytest.fixture
def postgres_url(postgres: postgresql.Postgres) -> Iterator[str]:
    """An empty schema for one test."""
    with postgres.schema() as url:
        yield url


@pytest.fixture
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty store for one test, of the kind that this run is over."""
    if request.config.getoption("--store") == "postgresql":
        return str(request.getfixturevalue("postgres_url"))
    return f"sqlite:///{tmp_path / 'deep' / 'fleet.sqlite3'}"


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The recorded tapes: FLEET_DATA, or shared/data beside the checkout."""
    folder = Path(os.environ.get("FLEET_DATA") or ROOT.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip("no recorded tapes here: set FLEET_DATA to their folder")
    return folder


@pytest.fixture
async def store(store_url: str) -> AsyncIterator[Store]:
    """An open, empty store."""
    opened = open_store(store_url)
    await opened.open()
    yield opened
    await opened.close()


@pytest.fixture
def done() -> Callable[..., Settled]:
    """A handled delivery: `done("E1", outcome="failed", …)`."""

    def make(event_id: str, **more: object) -> Settled:
        fields: dict[str, object] = {
            "service": "svc",
            "event_id": event_id,
            "outcome": "done",
            "attempt": 1,
            "worker": "worker-1",
            "at_ms": 1_000,
        }
        return Settled(**(fields | more))  # type: ignore[arg-type]  # each caller names its own

    return make
