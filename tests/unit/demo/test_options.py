"""What a demo is asked for, and what its processes are told."""

from __future__ import annotations

import gzip
import os
from decimal import Decimal
from pathlib import Path

import pytest

from fleet.core.errors import OperatorError, SettingsError
from fleet.demo.children import Child, ChildError
from fleet.demo.options import EVENTS, THRESHOLD, Options

LINE = "1723161255342,BTC/USDT,61837.63,0.02\n"
TAPE = "ts_ms,pair,price,qty\n" + 3 * LINE


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(("events", "ticks"), [(None, 3), (2, 2), (9, 3)])
def test_the_trades_of_a_tape_are_counted(
    tmp_path: Path, events: int | None, ticks: int, *, packed: bool
):
    """Packed or plain, up to the number that is to be played; the header is none."""
    tape = tmp_path / "tape"
    tape.write_bytes(gzip.compress(TAPE.encode()) if packed else TAPE.encode())
    assert Options(trades=tape, events=events).ticks() == ticks


@pytest.mark.parametrize("content", [b"", b"nonsense\n", b"\x1f\x8bnonsense", None])
def test_a_bad_tape_is_one_sentence_before_anything_runs(tmp_path: Path, content: bytes | None):
    """Missing, without its header, or broken."""
    tape = tmp_path / "tape"
    if content is not None:
        tape.write_bytes(content)
    with pytest.raises(SettingsError, match=str(tape)):
        Options(trades=tape).ticks()


BAD = "ts_ms,pair,price,qty\n1,A/B,NaN,1\n" + LINE + "nonsense\n" + LINE


def test_bad_lines_are_named_and_no_trades(tmp_path: Path):
    """By file and line; what is counted is what will be played."""
    tape, said = tmp_path / "tape", []
    tape.write_text(BAD)
    assert Options(trades=tape).ticks(said.append) == 2
    assert [line.partition(f"{tape}:")[2].partition(":")[0] for line in said] == ["2", "4"]


def test_a_tape_that_breaks_off_is_played_up_to_there(tmp_path: Path):
    """The break is named by file and line; under --strict-tape it is a refusal instead."""
    tape, said = tmp_path / "tape.gz", []
    lines = "".join(f"{n},A/B,{n}.{n * n},1\n" for n in range(1, 3000))
    tape.write_bytes(gzip.compress(b"ts_ms,pair,price,qty\n" + lines.encode())[:-2000])
    played = Options(trades=tape).ticks(said.append)
    assert 0 < played < 2999
    assert [f"{tape}:{played + 2}: the file breaks off here" in line for line in said] == [True]
    strict = Options(trades=tape, strict_tape=True)
    assert "--strict-tape" in strict.sandbox_words()
    with pytest.raises(SettingsError, match=rf"{tape}:{played + 2}: .*without --strict-tape"):
        strict.ticks()


@pytest.mark.parametrize("content", ["", "nonsense\n", "1,A/B,NaN,1\n2,A/B,0,1\n"])
def test_a_tape_without_one_trade_is_refused(tmp_path: Path, content: str):
    """Nothing played is no success."""
    tape = tmp_path / "tape"
    tape.write_text("ts_ms,pair,price,qty\n" + content)
    with pytest.raises(SettingsError, match="has no trade that can be played"):
        Options(trades=tape).ticks()


def test_a_pipe_is_refused(tmp_path: Path):
    """It could be read only once."""
    os.mkfifo(tmp_path / "tape")
    with pytest.raises(SettingsError, match="is a pipe"):
        Options(trades=tmp_path / "tape").ticks()


def test_without_a_tape_the_market_is_made_up_short_and_trades():
    """A modest number of events, and a threshold that it crosses."""
    options = Options(seed=7)
    assert options.ticks() == EVENTS
    words = " ".join(options.sandbox_words())
    assert f"--events {EVENTS}" in words
    assert "--seed 7" in words
    assert options.settings() == {"MOMENTUM_THRESHOLD": str(THRESHOLD)}


def test_with_a_tape_the_agent_keeps_its_own_threshold(tmp_path: Path):
    """Unless another one is asked for."""
    assert Options(trades=tmp_path).settings() == {}
    asked = Options(trades=tmp_path, threshold=Decimal("0.0002"))
    assert asked.settings() == {"MOMENTUM_THRESHOLD": "0.0002"}


async def test_a_process_that_cannot_go_on_says_why(tmp_path: Path):
    """Its own sentence reaches the person who started the demo."""
    child = Child("sandbox", ["sandbox", "--trades", "nowhere"], {}, tmp_path)
    child.start()
    with pytest.raises(OperatorError, match="The tape nowhere cannot be read"):
        await child.says(lambda _: None)
    child.stop()


async def test_a_process_that_breaks_is_named_with_its_last_words(tmp_path: Path):
    """No sentence of ours: its last line has to do."""
    child = Child("worker-9", ["nonsense"], {}, tmp_path)
    child.start()
    with pytest.raises(ChildError, match=r"worker-9 ended by itself: .*nonsense"):
        await child.says(lambda _: None)
    child.stop()


async def test_a_killed_process_can_be_started_again(tmp_path: Path):
    """Both times it says that it listens; stopped, it is gone, and a second stop is harmless."""
    child = Child("sandbox", ["sandbox", "--port", "0"], {}, tmp_path)
    for times in (1, 2):
        child.start()
        said = await child.says(
            lambda log, times=times: log if log.count("listening") == times else None
        )
        assert "http://127.0.0.1:" in said
        child.kill() if times == 1 else child.stop()
    child.stop()
    child.check()
