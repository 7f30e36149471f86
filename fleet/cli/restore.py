"""`fleet restore`: a store out of a backup."""

from __future__ import annotations

import json
from pathlib import Path

import click

from fleet import clock
from fleet.settings import load
from fleet.store import StoreSettings, backup
from fleet.store.factory import keeper


@click.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--force", is_flag=True, help="Replace what the store holds.")
@click.option("--json", "as_json", is_flag=True, help="The number of rows by table.")
def command(file: Path, *, force: bool, as_json: bool) -> None:
    """Make the store what FILE, a backup, says: all of it, or nothing.

    The store is an empty one unless --force is given, and no part of the fleet may be at work. It
    may be of another kind than the one that was backed up. What was done since the backup is not in
    it: events of that time that come again are handled again.
    """
    backup.check(file)
    with keeper(load(StoreSettings).url, create=True) as store:
        counted = backup.restore(store, file, clock.now_ms(), force=force)
    if as_json:
        click.echo(json.dumps(counted))
    else:
        click.echo(f"{sum(counted.values()):,} rows are restored.")
