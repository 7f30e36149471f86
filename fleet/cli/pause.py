"""`fleet pause`: withhold events from the workers until they are resumed."""

from __future__ import annotations

from functools import partial

import click

from fleet import clock
from fleet.cli import failed_options, failed_shown, stored
from fleet.cli.options import as_json
from fleet.core.errors import SettingsError, TopologyError
from fleet.store import Tx, controls, replicas
from fleet.store.controls import ALL, Pause
from topology.patterns import binding_key

service = click.option(
    "--service", default=ALL, show_default=True, metavar="NAME", help="Of this service; * is all."
)
pattern = click.option(
    "--type",
    "pattern",
    default=ALL,
    show_default=True,
    metavar="PATTERN",
    help="Only of this event type: 'order.requested', 'wallet.*'.",
)


@click.command()
@service
@pattern
@click.option("--note", default="", help="Why; it is shown in the status.")
@stored.by
@as_json
def command(service: str, pattern: str, note: str, by: str | None, *, as_json: bool) -> None:
    """Begin nothing more, in every worker within two seconds; what runs is finished.

    Nothing is lost, no attempt is counted. Events wait in their queues, or come round again until
    they are resumed; their own ages go on: a tick is expired when it is too old to trade on.
    """
    _check(pattern)
    wish = Pause(service, pattern, note, by or failed_options.user(), clock.now_ms())
    is_new, workers = stored.done(partial(_pause, wish=wish))
    if as_json:
        failed_shown.say_json({"pause": wish, "new": is_new, "workers": workers})
        return
    state = "is paused" if is_new else "was paused already"
    heard = "1 live worker hears" if workers == 1 else f"{workers} live workers hear"
    click.echo(f"{described(wish)} {state}; {heard} of it.")


def described(pause: Pause) -> str:
    """What a pause withholds, in words."""
    what = "Everything" if pause.pattern == ALL else pause.pattern
    return f"{what} in {'all services' if pause.service == ALL else pause.service}"


def _check(pattern: str) -> None:
    try:
        binding_key(pattern)
    except TopologyError as error:
        raise SettingsError(str(error)) from None


def _pause(tx: Tx, wish: Pause) -> tuple[bool, int]:
    stored.check_service(tx, wish.service)
    workers = [
        each
        for each in replicas.every(tx)
        if each.kind == "worker" and wish.service in (ALL, each.service)
    ]
    return controls.pause(tx, wish), sum(each.is_live(wish.at_ms) for each in workers)
