"""A wrong setting is one sentence that says what to do and never holds a secret."""

from __future__ import annotations

from pathlib import Path

import pytest

from fleet.core.errors import SettingsError
from publisher.settings import load_settings

GOOD = {"PF_AGENT_ID": "pf_agent_1", "PF_AGENT_KEY": "pf_live_abc123"}


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Good settings, and none of this machine."""
    for name in ("PF_AGENT_KEY_FILE", "PF_STREAM_URL", "PF_API_URL", "AMQP_URL", "PF_TOPICS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in GOOD.items():
        monkeypatch.setenv(name, value)


def told() -> str:
    """What `fleet publisher` asks of the settings; the key."""
    settings = load_settings()
    settings.agent()
    return settings.key()


@pytest.mark.parametrize("name", GOOD)
def test_what_is_missing_is_said_to_be_missing(monkeypatch: pytest.MonkeyPatch, name: str):
    """Not wrong: missing, under the name that is to be set."""
    monkeypatch.delenv(name)
    with pytest.raises(SettingsError, match=rf"{name} is missing; set it"):
        told()


def test_good_settings():
    """Id and key are all that is needed."""
    settings = load_settings()
    assert settings.key() == "pf_live_abc123"
    assert settings.topic_list() == ["*"]
    assert "abc123" not in repr(settings)


def test_a_key_from_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """A key file is read without the line's end."""
    file = tmp_path / "key"
    file.write_text("pf_live_fromfile\n")
    monkeypatch.delenv("PF_AGENT_KEY")
    monkeypatch.setenv("PF_AGENT_KEY_FILE", str(file))
    assert load_settings().key() == "pf_live_fromfile"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PF_AGENT_KEY", ""),
        ("PF_AGENT_KEY", "sk_live_SECRETSECRET"),
        ("PF_AGENT_KEY", "SECRETSECRET"),
        ("PF_AGENT_KEY", "pf_live_SECRET\r\nX-Injected: SECRET"),
        ("PF_AGENT_ID", ""),
        ("PF_AGENT_ID", "two words SECRET"),
        ("PF_STREAM_URL", "https://SECRET@example.com"),
        ("PF_STREAM_URL", "wss://"),
        ("PF_STREAM_URL", "wss://host:port/SECRET"),
        ("PF_STREAM_URL", "wss://host:SECRET/"),
        ("PF_STREAM_URL", "wss://[SECRET"),
        ("PF_PARTITIONS", "0"),
        ("PF_PARTITIONS", "SECRET"),
        ("PF_WINDOW", "-1"),
        ("PF_LEASE_TTL_S", "nan"),
    ],
)
def test_a_wrong_setting(monkeypatch: pytest.MonkeyPatch, name: str, value: str):
    """It is named, in one line, without its value."""
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as caught:
        told()
    assert name in str(caught.value)
    assert "SECRET" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_key_file_that_is_not_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """A key file that cannot be read says so."""
    monkeypatch.delenv("PF_AGENT_KEY")
    monkeypatch.setenv("PF_AGENT_KEY_FILE", str(tmp_path / "none"))
    with pytest.raises(SettingsError, match="cannot be read"):
        load_settings().key()


@pytest.mark.parametrize("content", [b"pf_live_SECRET" + b"x" * 4096, b"\xff\xfeSECRET", b" \n"])
def test_a_file_that_holds_no_key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: bytes):
    """A file that is too long, no text or empty is named, and no more than a key's bytes read."""
    file = tmp_path / "key"
    file.write_bytes(content)
    monkeypatch.delenv("PF_AGENT_KEY")
    monkeypatch.setenv("PF_AGENT_KEY_FILE", str(file))
    with pytest.raises(SettingsError, match="PF_AGENT_KEY_FILE") as caught:
        load_settings().key()
    assert "SECRET" not in str(caught.value)


def test_an_empty_key_file_variable_is_none(monkeypatch: pytest.MonkeyPatch):
    """An empty variable names no file."""
    monkeypatch.setenv("PF_AGENT_KEY", "")
    monkeypatch.setenv("PF_AGENT_KEY_FILE", "")
    with pytest.raises(SettingsError, match="PF_AGENT_KEY is missing"):
        load_settings().key()


@pytest.mark.parametrize(
    ("stream", "api", "prices"),
    [
        ("", "", "https://purpleflea.com"),
        ("ws://127.0.0.1:8765/api/stream", "", "http://127.0.0.1:8765"),
        ("ws://127.0.0.1:8765/api/stream", "https://api.example/", "https://api.example"),
    ],
)
def test_prices_are_asked_for_where_the_stream_is(
    monkeypatch: pytest.MonkeyPatch, stream: str, api: str, prices: str
):
    """A bridge at a stand-in does not ask the real platform."""
    for name, value in (("PF_STREAM_URL", stream), ("PF_API_URL", api)):
        if value:
            monkeypatch.setenv(name, value)
    assert load_settings().prices_url() == prices
