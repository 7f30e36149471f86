"""A PostgreSQL for the tests: one that is given, one in Docker, or a private local one."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

import psutil
import psycopg
import pytest

from fleet.broker.ports import free

IMAGE = "postgres:17"
# A test that kills the server leaves the machine, and what it would write, alive.
QUICK = ("-c", "fsync=off")
START_S = 60.0
USER = "fleet"


class Postgres:
    """A server that runs at `url`."""

    url: str

    @contextmanager
    def schema(self) -> Iterator[str]:
        """The URL of an empty schema, which is dropped afterwards."""
        name = f"test_{uuid.uuid4().hex[:12]}"
        self.execute(f"CREATE SCHEMA {name}")
        yield f"{self.url}{'&' if '?' in self.url else '?'}options={quote(f'-csearch_path={name}')}"
        self.execute(f"DROP SCHEMA {name} CASCADE")

    def execute(self, sql: str) -> None:
        """Do one thing as its owner."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(sql)

    def await_ready(self) -> None:
        """Return once it answers; raises the last error where it does not."""
        deadline = time.monotonic() + START_S
        while True:
            try:
                self.execute("SELECT 1")
            except psycopg.OperationalError:
                if time.monotonic() >= deadline:
                    raise
                time.sleep(0.1)
            else:
                return

    def kill(self) -> None:
        """End all of its processes at once; where it is for one test alone."""
        raise AssertionError("Tests that kill a server ask for `fresh_postgres`.")

    def start(self) -> None:
        """Start it again, on the same port and data."""
        raise AssertionError("Tests that kill a server ask for `fresh_postgres`.")

    def stop(self) -> None:
        """Stop it, where it is ours."""


class GivenPostgres(Postgres):
    """The one at FLEET_POSTGRES_URL."""

    def __init__(self, url: str) -> None:
        self.url = url


class ContainerPostgres(Postgres):
    """One that testcontainers runs, on a port that stays its own."""

    def __init__(self) -> None:
        os.environ.setdefault("TESTCONTAINERS_RYUK_DISABLED", "true")
        with warnings.catch_warnings():
            # The library's own deprecations are not this project's to mend.
            warnings.simplefilter("ignore")
            from testcontainers.core.container import DockerContainer  # noqa: PLC0415 - takes a second

            self._container = DockerContainer(IMAGE).with_bind_ports(5432, *free(1))
            self._container.with_command(" ".join(["postgres", *QUICK]))
            self._container.with_env("POSTGRES_USER", USER).with_env("POSTGRES_PASSWORD", USER)
            self._container.start()
        try:
            host = self._container.get_container_host_ip()
            port = self._container.get_exposed_port(5432)
            self.url = f"postgresql://{USER}:{USER}@{host}:{port}/{USER}"
            self.await_ready()
        except BaseException:
            self.stop()
            raise

    def kill(self) -> None:
        """Kill -9, as Docker does it."""
        self._container.get_wrapped_container().kill()

    def start(self) -> None:
        """Start the same container."""
        self._container.get_wrapped_container().start()
        self.await_ready()

    def stop(self) -> None:
        """Remove the container."""
        self._container.stop()


class LocalPostgres(Postgres):
    """One of our own, from the server's programs on this machine; it may be killed."""

    def __init__(self, programs: Path) -> None:
        self._programs = programs
        # Not below pytest's folders, into which no other user may look.
        self._folder = Path(tempfile.mkdtemp(prefix="fleet-postgres-"))
        (self._port,) = free(1)
        self.url = f"postgresql://{USER}@127.0.0.1:{self._port}/postgres"
        self._server: subprocess.Popen[bytes] | None = None
        try:
            if os.geteuid() == 0:
                shutil.chown(self._folder, "postgres")
            options = ("-A", "trust", "-U", USER, "-E", "UTF8", "--no-sync")
            subprocess.run(
                self._command("initdb", "-D", self._data, *options), check=True, capture_output=True
            )
            self.start()
        except BaseException:
            self.stop()
            raise

    @property
    def _data(self) -> str:
        return str(self._folder / "data")

    def start(self) -> None:
        """Start it, on the same port and data as before."""
        options = ("-D", self._data, "-p", str(self._port), "-k", str(self._folder))
        command = self._command("postgres", *options, "-h", "127.0.0.1", *QUICK)
        self._server = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        self.await_ready()

    def kill(self) -> None:
        """End all of its processes at once, as a power cut would."""
        if self._server is not None:
            parent = psutil.Process(self._server.pid)
            everybody = [*parent.children(recursive=True), parent]
            for process in everybody:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            # While one of them is there the next server refuses to use the data.
            psutil.wait_procs(everybody, timeout=START_S)
            self._server.wait()
            self._server = None

    def stop(self) -> None:
        """Stop it, and remove its data."""
        if self._server is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._server.pid, signal.SIGINT)
            self._server.wait()
            self._server = None
        shutil.rmtree(self._folder, ignore_errors=True)

    def _command(self, program: str, *arguments: str) -> list[str]:
        command = [str(self._programs / program), *arguments]
        # It refuses to run as root.
        other = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
        return [*other, *command] if os.geteuid() == 0 else command


def programs() -> Path | None:
    """Where initdb and postgres are on this machine; Debian keeps them out of the PATH."""
    found = shutil.which("initdb")
    folders = [Path(found).resolve().parent] if found else []
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((folder for folder in folders if (folder / "postgres").exists()), None)


def provide() -> Postgres:
    """A server for the whole run; skips where none can be had."""
    url = os.environ.get("FLEET_POSTGRES_URL")
    if url:
        return GivenPostgres(url)
    if _docker_answers():
        return ContainerPostgres()
    return private()


def private() -> Postgres:
    """A server that its test may kill; skips where none can be had."""
    folder = programs()
    if folder is None and _docker_answers():
        return ContainerPostgres()
    if folder is None:
        pytest.skip("no PostgreSQL here: set FLEET_POSTGRES_URL, or install Docker or PostgreSQL")
    return LocalPostgres(folder)


def _docker_answers() -> bool:
    docker = shutil.which("docker")
    return (
        docker is not None
        and not subprocess.run([docker, "info"], capture_output=True, check=False).returncode
    )
