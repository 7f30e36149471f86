"""Where the broker and the service are can be told apart from secrets, and in files."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from fleet.cli.load import told_handlers
from fleet.cli.worker import command as worker
from fleet.core.errors import SettingsError
from fleet.core.signature import Key, Keys
from fleet.settings import AmqpSettings, SigningSettings, addresses, load
from publisher.settings import BridgeSettings
from topology.settings import TopologySettings
from workers.settings import WorkerSettings

NAMES = ("AMQP_URL", "AMQP_URL_FILE", "AMQP_PASSWORD", "AMQP_PASSWORD_FILE")
KINDS = (BridgeSettings, TopologySettings, WorkerSettings)


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """None of this machine's."""
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)


def found(monkeypatch: pytest.MonkeyPatch, **told: object) -> str:
    """The address with this environment."""
    for name, value in told.items():
        monkeypatch.setenv(name, str(value))
    return load(AmqpSettings).amqp_url


def test_nothing_told(monkeypatch: pytest.MonkeyPatch):
    """The broker of this machine; an empty variable tells nothing."""
    assert load(AmqpSettings).amqp_url == "amqp://guest:guest@127.0.0.1:5672/"
    assert found(monkeypatch, AMQP_URL="", AMQP_PASSWORD_FILE="").endswith("127.0.0.1:5672/")


@pytest.mark.parametrize("kind", KINDS)
def test_a_password_from_a_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: type[AmqpSettings]
):
    """A password in a file reaches each address without one, and is not shown."""
    file = tmp_path / "password"
    file.write_text("p@ss/w,rd\n")
    monkeypatch.setenv("AMQP_URL", "amqp://fleet@one:5672/v, amqps://fleet@two/v")
    monkeypatch.setenv("AMQP_PASSWORD_FILE", str(file))
    settings = load(kind)
    assert addresses(settings.amqp_url) == [
        "amqp://fleet:p%40ss%2Fw%2Crd@one:5672/v",
        "amqps://fleet:p%40ss%2Fw%2Crd@two/v",
    ]
    assert "w%2Crd" not in repr(settings)


def test_the_management_api_s_password_from_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """It goes to the user that MANAGEMENT_URL names, and to no other."""
    file = tmp_path / "password"
    file.write_text("p@ss\n")
    monkeypatch.setenv("MANAGEMENT_PASSWORD_FILE", str(file))
    for told, read in (
        ("http://monitor@one:15672", "http://monitor:p%40ss@one:15672"),
        ("http://monitor:own@one:15672", "http://monitor:own@one:15672"),
        ("http://one:15672", "http://one:15672"),
    ):
        monkeypatch.setenv("MANAGEMENT_URL", told)
        settings = load(TopologySettings)
        assert settings.management_url == read
        assert "p%40ss" not in repr(settings)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("amqp://a:own@host/", "amqp://a:own@host/"),
        ("amqp://host/", "amqp://guest:new@host/"),
        ("amqp://a@[::1]:5672/", "amqp://a:new@[::1]:5672/"),
        ("nonsense", "nonsense"),
    ],
)
def test_an_address_keeps_its_own_password(
    monkeypatch: pytest.MonkeyPatch, url: str, expected: str
):
    """What an address says itself counts; what is no address is left to who uses it."""
    assert found(monkeypatch, AMQP_URL=url, AMQP_PASSWORD="new") == expected  # noqa: S106 - a test's


def test_an_address_from_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """The whole address can stand in a file; one that is told outright counts more."""
    file = tmp_path / "url"
    file.write_text("amqp://a:b@filed/\n")
    assert found(monkeypatch, AMQP_URL_FILE=file) == "amqp://a:b@filed/"
    assert found(monkeypatch, AMQP_URL="amqp://a:b@told/") == "amqp://a:b@told/"


@pytest.mark.parametrize("name", ["AMQP_URL_FILE", "AMQP_PASSWORD_FILE"])
def test_a_file_that_is_not_there(monkeypatch: pytest.MonkeyPatch, name: str):
    """One sentence that names the variable."""
    with pytest.raises(SettingsError, match=rf"{name} cannot be read: No such file"):
        found(monkeypatch, **{name: "/nowhere/secret"})


def test_commas_in_a_password_do_not_divide():
    """Only a comma in front of another address does."""
    assert addresses("amqp://a:x,y@h/,AMQPS://a:z@i/") == ["amqp://a:x,y@h/", "AMQPS://a:z@i/"]


def test_handlers_from_the_environment(monkeypatch: pytest.MonkeyPatch):
    """A command is about the service in HANDLERS, unless it is told another."""
    monkeypatch.setenv("HANDLERS", "mine:service")
    assert told_handlers() == "mine:service"
    monkeypatch.setenv("HANDLERS", "")
    assert told_handlers() == "agent.handlers:service"
    shown = CliRunner().invoke(worker, ["--help"])
    assert "$HANDLERS" in shown.output


def test_the_keys_of_signatures(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """None by default; with ours and others from files, no key is ever shown."""
    for name in ("SIGNING_KEY", "SIGNING_KEYS", "SIGNING_KEY_FILE", "SIGNING_KEYS_FILE"):
        monkeypatch.delenv(name, raising=False)
    assert load(SigningSettings).keys() is None
    file = tmp_path / "others"
    file.write_text(f"b:{'t' * 32}\nc:{'u' * 32}\n")
    monkeypatch.setenv("SIGNING_KEYS_FILE", str(file))
    with pytest.raises(SettingsError, match="SIGNING_KEY must say ours"):
        load(SigningSettings).keys()
    monkeypatch.setenv("SIGNING_KEY", f"a:{'s' * 32}")
    settings = load(WorkerSettings)
    keys = settings.keys()
    assert keys is not None
    assert "sss" not in repr(settings)
    for each in (f"a:{'s' * 32}", f"b:{'t' * 32}", f"c:{'u' * 32}"):
        assert not keys.trouble(Keys(Key.read(each)).stamped({}, b""), b"")
    monkeypatch.setenv("SIGNING_KEY", "a:ssssshort")
    with pytest.raises(SettingsError, match="SIGNING_KEY is wrong") as raised:
        load(SigningSettings).keys()
    assert "sss" not in str(raised.value)


def test_a_name_of_an_option_is_checked_as_one_of_the_environment(monkeypatch: pytest.MonkeyPatch):
    """It stands in logs, headers and the journal; the option goes before the variable."""
    monkeypatch.setenv("WORKER_NAME", "w1")
    assert load(WorkerSettings, worker_name="w2").worker_name == "w2"
    wrong = CliRunner().invoke(worker, ["--name", "two\nlines"]).exception
    assert isinstance(wrong, SettingsError)
    assert "WORKER_NAME is wrong" in str(wrong)
