"""`fleet top`: what each handler does."""

from __future__ import annotations

import click

from fleet.cli import status_shown
from fleet.cli.options import as_json
from fleet.cli.status import every, once, watch
from fleet.status.handlers import lines


@click.command()
@once
@every
@as_json
def command(*, once: bool, every: float, as_json: bool) -> None:
    """Show each handler's rate, times, failures and retries over all live workers, until Ctrl-C."""
    watch(
        lambda state: status_shown.top(state, lines(state)),
        lambda state: {"at_ms": state.at_ms, "store": state.store, "handlers": lines(state)},
        once=once,
        every=every,
        as_json=as_json,
    )
