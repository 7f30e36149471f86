"""`fleet backup`: the store as one file, while the fleet runs."""

from __future__ import annotations

import json
from pathlib import Path

import click

from fleet import clock
from fleet.core.errors import StoreError
from fleet.settings import load
from fleet.store import StoreSettings, backup
from fleet.store.factory import keeper


@click.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="The number of rows by table.")
def command(file: Path, *, as_json: bool) -> None:
    """Write the store as it is now to FILE; the fleet may go on.

    FILE restores into SQLite and into PostgreSQL. It is replaced where it is there, and readable by
    you alone: events and orders stand in it.
    """
    with keeper(load(StoreSettings).url, create=False) as store:
        try:
            counted = backup.write(store, file, clock.now_ms())
        except OSError as error:
            raise StoreError(f"{file} cannot be written: {error.strerror}.") from None
    if as_json:
        click.echo(json.dumps(counted))
    else:
        click.echo(f"{sum(counted.values()):,} rows are in {file}.")
