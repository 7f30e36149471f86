"""Recorded tapes, good and bad."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterable
from decimal import Decimal
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.core.errors import SettingsError
from sandbox.tape import BadLine, Tape, read_trade

GOOD = "1723161255342,BTC/USDT,61837.63,0.02"
BAD = {
    "1,A/B,1.5": "has 3 columns",
    "1,A/B,1.5,1,1": "has 5 columns",
    "": "has 1 columns",
    "1,A/B,abc,1": "price is not a number",
    "1,A/B,NaN,1": "price is not a number",
    "1,A/B,Infinity,1": "price is not a number",
    "1,A/B,0,1": "price is not above zero",
    "1,A/B,-5,1": "price is not above zero",
    "1,A/B,1e500,1": "price is out of range",
    "1,A/B,1." + "3" * 61 + ",1": "price is not a number of up to 40 digits and 60 decimals",
    "1,A/B,1.5,NaN": "qty is not a number",
    "1,A/B,1.5,-1": "qty is below zero",
    "1.5,A/B,1.5,1": "ts_ms is no time",
    "-1,A/B,1.5,1": "ts_ms is no time",
    "x,A/B,1.5,1": "ts_ms is no time",
    "1,,1.5,1": "pair is no name",
    '1,"A""B",1.5,1': "pair is no name",
    "1,A/B,1.5," + "1" * 2000: "longer than",
}


def tape_of(path: Path, *, strict: bool = False) -> tuple[Tape, list[str]]:
    """A tape and the list its reports go to."""
    reports: list[str] = []
    return Tape(path, strict=strict, report=reports.append), reports


@pytest.mark.parametrize(("line", "reason"), BAD.items())
def test_a_bad_line_is_named_and_skipped(
    write_tape: Callable[[Iterable[str]], Path], line: str, reason: str
) -> None:
    """A bad line is reported with file, line number and reason; its neighbours are played."""
    path = write_tape([GOOD, line, GOOD])
    tape, reports = tape_of(path)
    assert len(list(tape.trades())) == 2
    assert tape.bad_lines == len(reports) == 1
    assert reports[0].startswith(f"{path}:3: {reason}")


@pytest.mark.parametrize("line", BAD)
def test_a_strict_tape_is_refused_before_it_is_played(
    write_tape: Callable[[Iterable[str]], Path], line: str
) -> None:
    """With strict, one bad line is an operator's error at the check, named by file and line."""
    path = write_tape([GOOD, line, GOOD])
    with pytest.raises(SettingsError, match=rf"{path.name}:3: "):
        tape_of(path, strict=True)[0].check(None)


def test_a_strict_tape_is_read_only_as_far_as_it_is_played(
    write_tape: Callable[[Iterable[str]], Path],
) -> None:
    """A bad line behind the last trade that is asked for does not matter."""
    tape_of(write_tape([GOOD, "bad"]), strict=True)[0].check(1)


@pytest.mark.parametrize(
    "content",
    [b"", b"\n", b"a,b\n", b"\x1f\x8b", b"\x1f\x8bgarbage", b"\xff\xfe\n", b"ts_ms,pair,bid,ask\n"],
)
def test_a_file_that_is_no_tape_is_refused(tmp_path: Path, content: bytes) -> None:
    """Without the header nothing is played: one sentence with the file's name."""
    path = tmp_path / "tape.csv"
    path.write_bytes(content)
    with pytest.raises(SettingsError, match=r"The tape .*tape.csv"):
        tape_of(path)[0].check(None)


@pytest.mark.parametrize("name", ["missing.csv", "."])
def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path, name: str) -> None:
    """A missing file and a folder are an operator's error."""
    with pytest.raises(SettingsError, match="cannot be read"):
        tape_of(tmp_path / name)[0].check(None)


def test_a_truncated_gzip_is_a_bad_line_at_its_end(tmp_path: Path) -> None:
    """What was whole before the break is played, and the break is reported."""
    path = tmp_path / "tape.csv.gz"
    lines = "".join(f"{at},BTC/USDT,{at}.5,1\n" for at in range(1, 20_001))
    packed = gzip.compress(("ts_ms,pair,price,qty\n" + lines).encode())
    path.write_bytes(packed[: len(packed) // 2])
    tape, reports = tape_of(path)
    played = len(list(tape.trades()))
    assert 0 < played < 20_000
    assert tape.bad_lines == 1
    assert reports[0].startswith(f"{path}:{played + 2}: the file breaks off here")
    with pytest.raises(SettingsError, match="breaks off"):
        tape_of(path, strict=True)[0].check(None)


def test_bytes_that_are_no_text_cost_one_line(tmp_path: Path) -> None:
    """Undecodable bytes spoil their own line only; a byte order mark and CRLF spoil nothing."""
    path = tmp_path / "tape.csv"
    header = b"\xef\xbb\xbfts_ms,pair,price,qty\r\n"
    path.write_bytes(header + b"1,A/B,1,1\r\n2,A\xff/B,1,1\r\n" + b"x" * 9000 + b"\n3,A/B,1,1")
    tape, reports = tape_of(path)
    assert [trade.ts_ms for trade in tape.trades()] == [1, 3]
    assert [report.split(": ")[1] for report in reports] == [
        "not UTF-8; skipped",
        "longer than 1024 bytes; skipped",
    ]


@given(st.binary(max_size=80) | st.text(max_size=80).map(str.encode))
def test_any_line_is_a_trade_or_a_bad_line(line: bytes) -> None:
    """No bytes make the reader fail otherwise."""
    try:
        trade = read_trade(line)
    except BadLine:
        return
    assert trade.price > 0


PRICES = st.integers(0, 60).flatmap(
    lambda places: st.decimals(Decimal("1e-12"), Decimal("1e12"), allow_nan=False, places=places)
)
"""With as many decimal places as a tape may have, and no more."""


@given(PRICES, st.integers(1, 2**45))
def test_numbers_keep_their_text(price: Decimal, ts_ms: int) -> None:
    """A price goes on as the very text of the tape, and that text is a JSON number."""
    text = format(price, "f")
    trade = read_trade(f"{ts_ms},A/B,{text},0.10\n".encode())
    assert (trade.price_text, trade.qty_text, trade.ts_ms) == (text, "0.10", ts_ms)
    assert msgspec.json.decode(text, type=Decimal) == trade.price


def test_recorded_trades_are_all_good(recorded: Path) -> None:
    """Every one of the 34,419 recorded trades is read."""
    tape, reports = tape_of(recorded, strict=True)
    assert sum(1 for _ in tape.trades()) == 34_419
    assert not reports
