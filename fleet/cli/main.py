"""`fleet`: one command over the whole house."""

from __future__ import annotations

import errno
import importlib
import os
import sys
from collections.abc import Callable
from io import BufferedWriter, FileIO, TextIOWrapper
from typing import TYPE_CHECKING, NoReturn

import click

from fleet.core.errors import OperatorError, StateError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

COMMANDS = {
    "alerts": "See what a person was told; say that it is over.",
    "audit": "Reckon every event: published, handled, waiting, lost.",
    "backup": "Write the store to a file, while the fleet runs.",
    "broker": "Run a private RabbitMQ until interrupted.",
    "demo": "Show the whole fleet at work on one machine.",
    "doctor": "Say whether the fleet can work, and what to do where not.",
    "effects": "See what was done to the world; resolve or retry it.",
    "emit": "Publish one event by hand.",
    "explain": "Tell the story of one event, or of one effect key.",
    "exporter": "Serve what is true of the whole fleet, for Prometheus.",
    "failed": "See why messages failed; replay, resolve or restore them.",
    "handlers": "See which handlers work or are halted; release one.",
    "mode": "Show or set what the agent may do.",
    "pause": "Withhold events from the workers.",
    "prune": "Delete old rows that nothing can ask about any more.",
    "publisher": "Run the bridge: events from their source onto the exchange.",
    "restore": "Make the store what a backup says.",
    "resume": "Let the workers have again what was paused.",
    "sandbox": "Run a stand-in Purple Flea: stream, REST and a ledger.",
    "status": "Show the whole fleet on one screen.",
    "top": "Show what each handler does.",
    "topology": "Show, apply, check or export the broker's layout.",
    "worker": "Run one worker replica, or several.",
}


_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class Commands(click.Group):
    """Loads a command's module only when it is asked for, so that `--help` is quick."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Name every command."""
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:  # noqa: ARG002
        """Load the command called `name`."""
        if name not in COMMANDS:
            return None
        return _load(name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """List the commands without loading one."""
        with formatter.section("Commands"):
            formatter.write_dl(sorted(COMMANDS.items()))


class _Output(FileIO):
    """Standard output whose reader may go, as `head` does: what follows is dropped."""

    def write(self, data: ReadableBuffer, /) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            _drop_output()
            return memoryview(data).nbytes


def _drop_output() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _load(name: str) -> click.Command:
    command = importlib.import_module(f"fleet.cli.{name}").command
    if not isinstance(command, click.Command):
        raise TypeError(f"fleet.cli.{name} has no command")
    return command


@click.group(cls=Commands)
@click.version_option(package_name="flea-fleet")
def fleet() -> None:
    """Events from a trading platform, onto RabbitMQ, through a fleet of workers."""


def import_structlog() -> None:
    """Import structlog without rich, which it takes along for tracebacks in colour.

    Ours are rendered before they come to that, and it is 4 MB in each worker and bridge.
    """
    if "rich" not in sys.modules:
        # None says "not there" to the import system, though not to the type's author.
        sys.modules["rich"] = None  # type: ignore[assignment]
        importlib.import_module("structlog")
        del sys.modules["rich"]


def main() -> None:
    """Run the command line; an operator's error is one sentence and exit code 2."""
    import_structlog()
    run("fleet", lambda: fleet)


def replay_failed() -> None:
    """Run `fleet failed` under the name of `replay-failed`."""
    run("replay-failed", lambda: _load("failed"))


def run(name: str, load: Callable[[], click.Command]) -> NoReturn:
    """Load and run a command under a name.

    What a person must change is one sentence and exit code 2; Ctrl-C is exit code 1. Whoever stops
    to read the output (`| head`) changes neither what a command does nor its exit code.
    """
    if isinstance(sys.stdout, TextIOWrapper):
        # Not every locale has the lines of a table.
        sys.stdout = TextIOWrapper(
            BufferedWriter(_Output(1, "w", closefd=False)),
            sys.stdout.encoding,
            errors="replace",
            line_buffering=sys.stdout.line_buffering,
        )
    try:
        load()(prog_name=name)
    except OperatorError as error:
        click.echo(f"{name}: {error}", err=True)
    except StateError as error:  # time mends it, and a command does not wait for that
        click.echo(f"{name}: {error} Run it again.", err=True)
    except KeyboardInterrupt:
        click.echo("Aborted!", err=True)
        sys.exit(1)
    except OSError as error:
        if error.errno not in _FULL:
            raise
        _drop_output()  # else Python tries once more as it ends
        click.echo(f"{name}: Cannot write the output: {error.strerror}; make room.", err=True)
    sys.exit(2)
