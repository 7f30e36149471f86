"""What operators say to the fleet through the store: pause, resume, handlers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from fleet import clock
from fleet.cli.main import fleet
from fleet.core.errors import OperatorError, SettingsError, StoreError
from fleet.store import Tx, bindings, controls, open_store, replicas
from fleet.store.controls import Controls, Halt
from fleet.store.replicas import Pulse, Replica, Work

HALT = Halt("svc", "on_order", "f" * 12, "ValueError: odd", "w", "a", 1_700_000_000_000)

Within = Callable[[Callable[[Tx], Any]], Any]


def run(*words: str) -> Any:
    """The answer of a command that went well, read as JSON; raises what it tells an operator."""
    done = CliRunner().invoke(fleet, [*words, "--json"])
    if isinstance(done.exception, OperatorError):
        raise done.exception
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


@pytest.fixture
def within(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Within:
    """Does something in the commands' store: two services are laid out, one worker is live."""
    url = f"sqlite:///{tmp_path}/fleet.sqlite3"
    monkeypatch.setenv("STORE_URL", url)

    def do(work: Callable[[Tx], Any]) -> Any:
        async def within_store() -> Any:
            store = open_store(url)
            await store.open()
            try:
                return await store.run(work)
            finally:
                await store.close()

        return asyncio.run(within_store())

    def prepare(tx: Tx) -> None:
        now_ms = clock.now_ms()
        heard_ms = now_ms + 3_600_000  # live for all of the test, however slow the commands are
        pulse = Pulse("running", handlers={"on_order": Work(), "on_tick": Work()})
        replicas.beat(tx, Replica("worker", "w", "i", "svc", "h", 1, "v", now_ms, heard_ms, pulse))
        for name in ("svc", "other"):
            bindings.record(tx, name, ["order.requested"], 0)

    do(prepare)
    return do


def test_a_pause_is_made_and_lifted_by_the_same_options(within: Within):
    """What is paused, by whom and why is kept until the same words resume it."""
    words = ("--service", "svc", "--type", "order.*")
    said = run("pause", *words, "--note", "odd", "--by", "ada")
    assert (said["new"], said["workers"]) == (True, 1)
    assert run("pause", *words, "--by", "bob")["new"] is False
    (pause,) = within(controls.every).pauses
    assert (pause.service, pause.pattern) == words[1::2]
    assert (pause.note, pause.operator) == ("odd", "ada")
    assert run("pause", "--service", "other")["workers"] == 0
    resumed = run("resume", *words)
    assert [each["pattern"] for each in resumed["lifted"]] == ["order.*"]
    assert [each["service"] for each in resumed["paused"]] == ["other"]
    assert len(run("resume", "--all")["lifted"]) == 1
    assert within(controls.every) == Controls()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("pause --service nope", "There is no service nope in this store; known are other, svc."),
        ("pause --type Order", "'Order' is no pattern"),
        ("resume", "There is no such pause: paused is --service 'svc' --type '*'."),
        ("handlers release on_order", "No handler on_order is halted; see `fleet handlers list`."),
    ],
)
def test_what_cannot_be_done_is_told_in_a_sentence(within: Within, words: str, sentence: str):
    """Nothing is changed, and the sentence says what to do."""
    run("pause", "--service", "svc")
    before = within(controls.every)
    with pytest.raises(SettingsError, match=sentence.replace("*", r"\*").split(";", maxsplit=1)[0]):
        run(*words.split())
    assert within(controls.every) == before


def test_nothing_is_made_where_there_is_no_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A mistyped STORE_URL makes no empty store that nobody would read."""
    monkeypatch.setenv("STORE_URL", f"sqlite:///{tmp_path}/other.sqlite3")
    with pytest.raises(StoreError, match="There is no store"):
        run("pause")
    assert list(tmp_path.iterdir()) == []


def test_handlers_are_listed_and_a_halted_one_is_released_once(within: Within):
    """Those of the live workers and those that are halted, with the reason."""
    within(lambda tx: controls.halt(tx, HALT))
    listed = {each["handler"]: each for each in run("handlers", "list")}
    assert listed["on_tick"]["state"] == "working"
    assert (listed["on_order"]["state"], listed["on_order"]["workers"]) == ("halted", 1)
    assert listed["on_order"]["reason"] == "ValueError: odd"
    assert run("handlers", "release", "on_order", "--note", "mended")["fingerprint"] == "f" * 12
    assert within(controls.every) == Controls()
    with pytest.raises(SettingsError, match="No handler on_order is halted"):
        run("handlers", "release", "on_order")


def test_a_handler_that_two_services_halted_has_to_be_named(within: Within):
    """One word must not release two."""
    other = Halt("other", *(getattr(HALT, name) for name in HALT.__struct_fields__[1:]))
    within(lambda tx: (controls.halt(tx, HALT), controls.halt(tx, other)))
    with pytest.raises(SettingsError, match=r"is halted in .*; name one with --service"):
        run("handlers", "release", "on_order")
    assert run("handlers", "release", "on_order", "--service", "other")["service"] == "other"
    assert [each.service for each in within(controls.every).halts] == ["svc"]
