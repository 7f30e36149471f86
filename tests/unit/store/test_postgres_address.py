"""Where a PostgreSQL store is: what is wrong is said without the password."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from fleet.core.errors import SettingsError, StoreError
from fleet.settings import load
from fleet.store import StoreSettings, open_store, place_of
from fleet.store.postgres_link import Address
from fleet.store.postgres_tx import numbered

URL = "postgresql://fleet@db.example.org/fleet?sslmode=verify-full"


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("STORE_URL", "STORE_URL_FILE", "STORE_PASSWORD", "STORE_PASSWORD_FILE"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://fleet:se@cret@db/fleet",
        "postgresql://fleet:se/cret@db/fleet",
        "postgresql://fleet:secret@db:port/fleet",
        "postgresql://fleet:secret@db/fleet?nonsense=1",
        "postgresql://fleet:secret@[db/fleet",
    ],
)
def test_a_wrong_url_is_not_repeated(url: str):
    """One sentence says how it should look, also where libpq would take a password for a name."""
    with pytest.raises(StoreError, match="STORE_URL") as caught:
        open_store(url)
    assert "cret" not in str(caught.value)
    assert "\n" not in str(caught.value)


async def test_a_server_that_is_not_there(monkeypatch: pytest.MonkeyPatch):
    """After a moment the sentence says where nobody answers, and no password."""
    monkeypatch.setattr("fleet.store.postgres.PATIENCE_S", 0.1)
    with pytest.raises(StoreError, match=r"127\.0\.0\.1:1/fleet cannot be opened") as caught:
        await open_store("postgresql://fleet:secret@127.0.0.1:1/fleet").open()
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_secret_in_what_is_shown():
    """Neither the place that a log names nor the reason of an error has the password."""
    url = "postgresql://fleet:s%40cret@db:5433/fleet?sslmode=require"
    assert place_of(url) == "db:5433/fleet"
    assert place_of("postgres://fleet:se?cret#@db/fleet") == "db:5432/fleet"
    address = Address(url)
    assert address.place == "db:5433/fleet"
    said = address.reason(RuntimeError("connection to s@cret\n\tfailed"))
    assert said == "connection to *** failed"
    assert "s@cret" not in repr(address)


def test_the_password_may_stand_in_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """It is put into a URL that names a user only; another URL stays as it is."""
    file = tmp_path / "password"
    file.write_text("p@ss:/word\n")
    monkeypatch.setenv("STORE_PASSWORD_FILE", str(file))
    monkeypatch.setenv("STORE_URL", URL)
    assert load(StoreSettings).url == URL.replace("fleet@", "fleet:p%40ss%3A%2Fword@")
    assert "p%40ss" not in repr(load(StoreSettings))
    for other in ("postgresql://fleet:own@db/fleet", "postgresql:///fleet", "sqlite:///a@b"):
        monkeypatch.setenv("STORE_URL", other)
        assert load(StoreSettings).url == other


def test_the_url_may_stand_in_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """STORE_URL_FILE is read where STORE_URL is not set, or empty; a missing file is named."""
    file = tmp_path / "url"
    file.write_text(f"{URL}\n")
    monkeypatch.setenv("STORE_URL_FILE", str(file))
    monkeypatch.setenv("STORE_URL", "")
    assert load(StoreSettings).url == URL
    monkeypatch.setenv("STORE_URL_FILE", str(tmp_path / "none"))
    with pytest.raises(SettingsError, match="STORE_URL_FILE cannot be read"):
        load(StoreSettings)


def test_without_the_driver(monkeypatch: pytest.MonkeyPatch):
    """One sentence says what to install."""
    for name in [name for name in sys.modules if name.startswith("fleet.store.postgres")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr("fleet.store.postgres", raising=False)  # where nobody asked for it yet
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(StoreError, match=r"pip install 'flea-fleet\[postgres\]'"):
        open_store(URL)


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT ? + ?", "SELECT $1 + $2"),
        ("SELECT '?' , 'it''s ?', ?", "SELECT '?' , 'it''s ?', $1"),
        ("SELECT a LIKE 'x%' || ?", "SELECT a LIKE 'x%' || $1"),
    ],
)
def test_question_marks_are_numbered(sql: str, expected: str):
    """Each mark outside of a text is a parameter."""
    assert numbered(sql) == expected
