"""The options that the commands on failed messages share."""

from __future__ import annotations

import asyncio
import getpass
import signal
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import click
import uvloop

from fleet import clock
from fleet.cli import stored
from fleet.cli.load import load_service
from fleet.cli.options import of_service
from fleet.core.errors import SettingsError, StateError, StoreError
from fleet.settings import load
from fleet.store import Store, StoreSettings, open_store
from fleet.telemetry import log as logs
from replay.place import Place
from replay.selection import Selection, moment
from replay.verdict import Judge
from topology import names
from topology.settings import TopologySettings
from workers.registry import Service

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")

dry_run = click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
yes = click.option("--yes", is_flag=True, help="Do not ask.")
limit = click.option("--limit", type=click.IntRange(min=1), help="At most so many messages.")
stale = click.option("--even-if-stale", is_flag=True, help="Send also what is too old to act on.")


def at_queue(function: F) -> F:
    """Give a command the options that say which queue, and who acts."""
    for option in (
        stored.by,
        click.option(
            "--unrouted", is_flag=True, help="What nobody wanted, instead of what failed."
        ),
        of_service("The service whose messages they are."),
    ):
        function = option(function)
    return function


def selecting(function: F) -> F:
    """Give a command the options that select messages; each but the times can be repeated."""
    for name, text in (
        ("--until", "Failed at or before: 30s, 15m, 2h, 1d (ago), or an ISO time (UTC)."),
        ("--since", "Failed at or after: likewise."),
        ("--text", "Stands in the error's message or the body."),
    ):
        function = click.option(name, default="", metavar="TEXT", help=text)(function)
    for name, text in (
        ("fingerprint", "The group, as `list` shows it."),
        ("error", "The error's type: 'Timeout*'."),
        ("handler", "The handler that failed."),
        ("class", "The failure class: network, api, data, logic, state, resource."),
        ("type", "The event type: 'wallet.*'."),
        ("id", "The message's id."),
    ):
        option = click.option(
            f"--{name}", f"of_{name}", multiple=True, metavar="PATTERN", help=text
        )
        function = option(function)
    return function


def selection(options: dict[str, Any]) -> Selection:
    """Take the selecting options out of a command's. Raises SettingsError for a wrong time."""
    now = clock.now_ms()
    since, until = options.pop("since"), options.pop("until")
    return Selection(
        ids=tuple(options.pop("of_id")),
        types=tuple(options.pop("of_type")),
        classes=tuple(options.pop("of_class")),
        handlers=tuple(options.pop("of_handler")),
        errors=tuple(options.pop("of_error")),
        fingerprints=tuple(options.pop("of_fingerprint")),
        text=options.pop("text"),
        since_ms=moment(since, now) if since else 0,
        until_ms=moment(until, now) if until else 0,
    )


def the_service(handlers: str) -> Service:
    """The service that is named. Raises SettingsError where it has no handlers."""
    service = load_service(handlers)
    if not isinstance(service, Service):
        raise SettingsError(f"{handlers} has a layout but no handlers; name a service.")
    return service


class Where:
    """What `at_queue` says, and how a command gets to work there."""

    def __init__(self, handlers: str, by: str | None, *, unrouted: bool) -> None:
        logs.configure(level="error")
        self.service = the_service(handlers)
        self.queue = names.UNROUTED if unrouted else names.failed(self.service.name)
        self.operator = by or user()
        self._url = load(TopologySettings).amqp_url
        self._store_url = load(StoreSettings).url

    def work(self, task: Callable[[Place, asyncio.Event], Awaitable[T]]) -> T:
        """Do `task`, given an event that Ctrl-C and SIGTERM set; a second one ends it at once."""
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                return runner.run(self._with_store(task))
        except asyncio.CancelledError:
            raise click.Abort from None
        except StateError as error:
            raise StoreError(f"{error} Nothing is lost; run it again.") from None

    def judge(self, *, even_if_stale: bool = False) -> Judge:
        """A judge of the service's messages."""
        return Judge(self.service, even_if_stale=even_if_stale)

    async def _with_store(self, task: Callable[[Place, asyncio.Event], Awaitable[T]]) -> T:
        stop, me = asyncio.Event(), asyncio.current_task()

        def asked() -> None:
            if stop.is_set() and me is not None:
                me.cancel()
            stop.set()

        # Not made: what is archived in a store of somebody's mistyping is as good as gone.
        store: Store = open_store(self._store_url, create=False)
        with _asking(asked):
            await store.open()
            try:
                return await task(self._place(store), stop)
            finally:
                await store.close()

    def _place(self, store: Store) -> Place:
        return Place(self._url, store, self.service, self.queue, self.operator)


@contextmanager
def _asking(asked: Callable[[], None]) -> Iterator[None]:
    """Call `asked` at each Ctrl-C and SIGTERM, in here alone: a question behind it ends by them."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, asked)
    try:
        yield
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


def user() -> str:
    """The name of whoever runs this."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"
