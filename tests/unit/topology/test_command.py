"""`fleet topology show` and `export`, and how services are found."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from fleet.cli.load import load_service, load_services
from fleet.cli.topology import command
from fleet.core.errors import SettingsError

SERVICE = """
from topology.model import Lanes, ServiceLayout

class Service:
    def layout(self):
        return ServiceLayout("{name}", ("wallet.*",), lanes=Lanes())

service = Service()
number = 7

def handler(ctx, payload):
    pass

async def slow():
    pass

def factory():
    raise ValueError("no\\nkey pf_live_hunter2")

def empty():
    pass
"""


PERMANENT = "from fleet.core.errors import DataError\nraise DataError('odd')"


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """A module with a service, in the working directory, as a user has it."""
    name = f"handlers_{abs(hash(request.node.nodeid))}"
    (tmp_path / f"{name}.py").write_text(SERVICE.format(name="mine"))
    (tmp_path / f"{name}_two.py").write_text(SERVICE.format(name="other"))
    (tmp_path / f"{name}_broken.py").write_text("raise RuntimeError('no\\nkey')")
    (tmp_path / f"{name}_exits.py").write_text("import sys; sys.exit('bye')")
    (tmp_path / f"{name}_permanent.py").write_text(PERMANENT)
    (tmp_path / f"{name}_needs.py").write_text("import not_installed_here")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    return name


def test_a_service_is_found_in_the_working_directory(module: str):
    """A user's own module needs no installing."""
    assert load_service(f"{module}:service").layout().name == "mine"


def test_several_services_are_separated_by_commas(module: str):
    """Two services make one layout."""
    both = load_services(f"{module}:service, {module}_two:service")
    assert [service.layout().name for service in both] == ["mine", "other"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "write module:name"),
        ("{}", "write module:name"),
        ("{}:", "write module:name"),
        (":service", "write module:name"),
        ("{}:nothing", "has no nothing"),
        ("{}:number", "is a int without a layout"),
        ("{}:Service", "is a type without a layout"),
        ("{}:handler", "name the Service, not a handler"),
        ("{}:slow", "name the Service, not a handler"),
        ("{}:factory", r"factory in module \w+ makes no service: ValueError: no key pf_live_\*"),
        ("{}:empty", "is a NoneType without a layout"),
        ("{}_exits:service", "cannot be imported: SystemExit: bye"),
        ("{}_permanent:service", "cannot be imported: DataError: odd"),
        ("{}.deeper:service", "There is no module"),
        ("{}_not_there:service", "There is no module"),
        (
            "{}_broken:service",
            r"cannot be imported: RuntimeError: no key \(line 1 of \w+_broken.py\)",
        ),
        ("{}_needs:service", "cannot be imported: ModuleNotFoundError"),
        ("..:service", "cannot be imported|There is no module"),
        ("{0}:service,", "write module:name"),
    ],
)
def test_a_service_that_is_not_there_is_one_sentence(module: str, text: str, words: str):
    """What is wrong with --handlers is said in one line."""
    with pytest.raises(SettingsError, match=words) as caught:
        load_services(text.format(module))
    assert "\n" not in str(caught.value)


def test_a_worker_takes_one_service(module: str):
    """Two services for one worker are said to be one too many, not a module that is not there."""
    with pytest.raises(SettingsError, match="a worker takes one service"):
        load_service(f"{module}:service,{module}_two:service")


@pytest.mark.parametrize("words", [("fleet", "topology", "show"), ("fleet.cli.failed", "--help")])
def test_output_that_cannot_be_written_is_one_sentence(words: tuple[str, ...]):
    """A full disk is no traceback, neither at once nor when Python ends."""
    with Path("/dev/full").open("w") as full:
        shown = subprocess.run(
            [sys.executable, "-m", *words],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert shown.returncode == 2
    assert shown.stderr.count("\n") == 1
    assert "Cannot write the output" in shown.stderr


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("fleet", "topology", "show"), 0),
        (("fleet.cli.failed", "--help"), 0),
        (("fleet", "doctor", "--no-canary"), 1),
    ],
)
def test_a_reader_that_goes_changes_no_exit_code(words: tuple[str, ...], code: int, tmp_path: Path):
    """`| head` is no failure, and what a command found wrong is still wrong."""
    reader, writer = os.pipe()
    os.close(reader)
    shown = subprocess.run(
        [sys.executable, "-m", *words],
        env={
            **os.environ,
            "AMQP_URL": "amqp://127.0.0.1:1/",
            "STORE_URL": f"sqlite:///{tmp_path}/none.sqlite3",
        },
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(writer)
    assert (shown.returncode, shown.stderr) == (code, "")


def test_a_locale_without_the_signs_of_a_table_shows_it_all_the_same():
    """What cannot be written in it is replaced; nothing is raised."""
    shown = subprocess.run(
        [sys.executable, "-m", "fleet", "topology", "show"],
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "pf.ingest" in shown.stdout


def test_a_virtual_host_needs_a_name(module: str):
    """An empty --vhost would make definitions that no broker takes."""
    options = ["--handlers", f"{module}:service", "--vhost", ""]
    assert CliRunner().invoke(command, ["export", *options]).exit_code == 2


def test_show_needs_no_broker_and_names_every_queue(module: str):
    """The plan can be read before there is a broker; runs of lanes are one line."""
    result = CliRunner().invoke(command, ["show", "--handlers", f"{module}:service"])
    assert result.exit_code == 0, result.output
    assert "wallet.# -> pf.mine" in result.output
    assert "partition=0 … partition=15 -> pf.mine.ticks.0 … 15" in result.output
    assert "x-dead-letter-strategy=at-least-once" in result.output


def test_show_json_is_the_whole_plan(module: str):
    """A program can read what a person sees."""
    result = CliRunner().invoke(command, ["show", "--json", "--handlers", f"{module}:service"])
    names = {queue["name"] for queue in json.loads(result.stdout)["queues"]}
    assert {"pf.mine", "pf.mine.failed", "pf.mine.ticks.0", "pf.events.log"} < names


def test_export_writes_no_user_and_no_permission(module: str, tmp_path: Path):
    """Loaded into a broker in use, definitions leave its users alone."""
    file = tmp_path / "definitions.json"
    options = ["--handlers", f"{module}:service", "--vhost", "money", "--output", str(file)]
    assert CliRunner().invoke(command, ["export", *options]).exit_code == 0
    exported = json.loads(file.read_text())
    assert exported.keys() == {"vhosts", "exchanges", "queues", "bindings"}
    assert {each["vhost"] for each in exported["queues"]} == {"money"}


def test_export_with_user_hashes_the_password(module: str, monkeypatch: pytest.MonkeyPatch):
    """The user of AMQP_URL is in the file, the password is not."""
    monkeypatch.setenv("AMQP_URL", "amqp://boss:hunter2@h/")
    options = ["--handlers", f"{module}:service", "--user"]
    result = CliRunner().invoke(command, ["export", *options])
    exported = json.loads(result.stdout)
    assert exported["users"][0]["name"] == exported["permissions"][0]["user"] == "boss"
    assert "hunter2" not in result.stdout


def test_a_bare_export_has_nobody_s_queues(monkeypatch: pytest.MonkeyPatch):
    """For a cluster's first boot: the administrator alone, and no service is asked for it."""
    monkeypatch.setenv("HANDLERS", "nowhere:service")
    monkeypatch.setenv("AMQP_URL", "amqp://boss:hunter2@h/")
    result = CliRunner().invoke(command, ["export", "--bare", "--user"])
    assert json.loads(result.stdout).keys() == {"vhosts", "users", "permissions"}


def test_a_file_that_cannot_be_written_is_one_sentence(module: str, tmp_path: Path):
    """A wrong --output is the operator's to mend."""
    options = ["--handlers", f"{module}:service", "--output", str(tmp_path / "no" / "file")]
    result = CliRunner().invoke(command, ["export", *options])
    assert isinstance(result.exception, SettingsError)
