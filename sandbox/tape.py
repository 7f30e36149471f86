"""Recorded trades: a csv or csv.gz file, read line by line and never loaded whole."""

from __future__ import annotations

import gzip
import io
import re
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import Final, NamedTuple

from fleet.core.errors import SettingsError

HEADER: Final = ("ts_ms", "pair", "price", "qty")
MAX_LINE: Final = 1024
MAX_MS: Final = 253_402_300_799_999  # the last millisecond of the year 9999
LARGEST: Final = Decimal(10) ** 18
SMALLEST: Final = Decimal(10) ** -18

_WHOLE = re.compile(r"[0-9]{1,15}").fullmatch
# The grammar of a JSON number, so that the text of the tape can go out as it came in.
_NUMBER = re.compile(
    r"-?(?:0|[1-9][0-9]{0,39})(?:\.[0-9]{1,60})?(?:[eE][+-]?[0-9]{1,3})?"
).fullmatch
_PAIR = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,31}").fullmatch


class Trade(NamedTuple):
    """One trade; `price_text` and `qty_text` are the numbers exactly as they were recorded."""

    ts_ms: int
    pair: str
    price: Decimal
    qty: Decimal
    price_text: str
    qty_text: str


class BadLine(ValueError):  # noqa: N818 - reads as the thing it is
    """A line of a tape that is no trade."""


def read_trade(line: bytes) -> Trade:
    """The trade on one line of a tape; raises BadLine with the reason where there is none."""
    ts_text, pair, price_text, qty_text = _columns(line)
    if not _WHOLE(ts_text) or not 0 < int(ts_text) <= MAX_MS:
        raise BadLine(f"ts_ms is no time in whole milliseconds: {ts_text!r}")
    if not _PAIR(pair):
        raise BadLine(f"pair is no name of a market: {pair!r}")
    price, qty = _number("price", price_text), _number("qty", qty_text)
    if price <= 0:
        raise BadLine(f"price is not above zero: {price_text}")
    if qty < 0:
        raise BadLine(f"qty is below zero: {qty_text}")
    return Trade(int(ts_text), pair, price, qty, price_text, qty_text)


def _columns(line: bytes) -> list[str]:
    if len(line) > MAX_LINE:
        raise BadLine(f"longer than {MAX_LINE} bytes")
    try:
        columns = line.rstrip(b"\r\n").decode("utf-8").split(",")
    except UnicodeDecodeError:
        raise BadLine("not UTF-8") from None
    if len(columns) != len(HEADER):
        raise BadLine(f"has {len(columns)} columns, not {len(HEADER)}")
    return columns


def _number(name: str, text: str) -> Decimal:
    if not _NUMBER(text):
        raise BadLine(f"{name} is not a number of up to 40 digits and 60 decimals: {text!r}")
    number = Decimal(text)
    if number and not SMALLEST <= abs(number) < LARGEST:
        raise BadLine(f"{name} is out of range: {text}")
    return number


class Tape:
    """A file of trades that tells what is wrong with it, by file and line.

    A bad line is reported and skipped, or, where `strict`, raises SettingsError. A file that
    cannot be read, or does not begin with the header, raises SettingsError from `check` and
    `trades`.
    """

    def __init__(self, path: Path, *, strict: bool, report: Callable[[str], None]) -> None:
        self.path = path
        self.bad_lines = 0
        self._strict = strict
        self._report = report

    def check(self, limit: int | None) -> None:
        """Raise SettingsError now for what would stop the tape within its first trades.

        A strict tape is read through (up to `limit` trades), so that it is refused before its
        first trade is played; a pipe, which can be read only once, is checked as it is played.
        """
        if self.path.is_fifo():
            return
        if self._strict:
            for _ in islice(self.trades(), limit):
                pass
        else:
            with ExitStack() as stack:
                self._open(stack)

    def trades(self) -> Iterator[Trade]:
        """Every good trade, in the order of the file."""
        with ExitStack() as stack:
            file = self._open(stack)
            number = 1
            try:
                for number, line in enumerate(_lines(file), start=2):
                    try:
                        yield read_trade(line)
                    except BadLine as error:
                        self._bad(number, str(error))
            except (EOFError, OSError, zlib.error) as error:
                self._bad(number + 1, f"the file breaks off here ({error})", "played up to here")

    def _open(self, stack: ExitStack) -> io.BufferedIOBase:
        try:
            plain = stack.enter_context(self.path.open("rb"))
            packed = plain.peek(2)[:2] == b"\x1f\x8b"
            unpacked = gzip.GzipFile(fileobj=plain)
            file = stack.enter_context(unpacked) if packed else plain
            header = file.readline(MAX_LINE)
        except (EOFError, OSError, zlib.error) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise SettingsError(f"The tape {self.path} cannot be read: {reason}.") from error
        if header.removeprefix(b"\xef\xbb\xbf").strip() != ",".join(HEADER).encode():
            raise SettingsError(
                f"The tape {self.path} must begin with the line {','.join(HEADER)}."
            )
        return file

    def _bad(self, number: int, reason: str, way_on: str = "skipped") -> None:
        place = f"{self.path}:{number}: {reason}"
        if self._strict:
            raise SettingsError(f"{place}; mend the tape or play it without --strict-tape.")
        self.bad_lines += 1
        self._report(f"{place}; {way_on}")


def _lines(file: io.BufferedIOBase) -> Iterator[bytes]:
    """The lines of a file, an over-long one cut, so that no file can fill the memory."""
    while line := file.readline(MAX_LINE + 1):
        yield line
        while len(line) > MAX_LINE and not line.endswith(b"\n"):
            line = file.readline(MAX_LINE + 1)


def to_stderr(line: str) -> None:
    """Report a line where a person running the command sees it."""
    sys.stderr.write(line + "\n")
    sys.stderr.flush()
