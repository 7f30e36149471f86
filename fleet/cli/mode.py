"""`fleet mode`: what the agent may do now, and an operator's word on it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final, TypeVar, cast

import click
from rich.table import Table

from agent import desk, state
from agent.modes import MODES, Mode
from agent.settings import load_settings
from agent.state import AgentState
from fleet import clock
from fleet.cli import failed_options, failed_shown, stored
from fleet.cli.options import as_json
from fleet.core.errors import SettingsError, StateError, StoreError
from fleet.settings import load
from fleet.store import Store, StoreSettings, open_store
from replay.entry import iso

T = TypeVar("T")

SHOW: Final = "show"


@click.command()
@click.argument("what", type=click.Choice([SHOW, *MODES]), default=SHOW)
@click.option("--note", default="", help="Why; asked for with every mode.")
@stored.by
@click.option(
    "--agent", "named", metavar="NAME", help="Whose mode. [PF_AGENT_ID, or the only one there is]"
)
@as_json
def command(what: str, *, note: str, by: str | None, named: str | None, as_json: bool) -> None:
    """Show the agent's mode, or set it: full, read_only, observation, shutdown.

    What is set is a ceiling: nothing freer comes by itself, and worse health still lowers it.
    "full" takes the ceiling away, and is the only end of a shutdown. All replicas follow within
    two seconds.
    """
    if what == SHOW:
        _show(_known(named), as_json=as_json)
        return
    if not note.strip():
        raise SettingsError("Say why, with --note: whoever looks at it later wants to know.")
    agent, who = next(iter(_known(named))) if named else _agent(), by or failed_options.user()
    order = partial(
        state.order_mode,
        agent=agent,
        mode=cast("Mode", what),
        operator=who,
        note=note,
        now_ms=clock.now_ms(),
    )
    _show({agent: _work(lambda store: store.run(order))}, as_json=as_json)


def _known(named: str | None) -> dict[str, AgentState]:
    """The states of all agents, or of the one that is named.

    Raises SettingsError where the store has no such agent: whoever mistypes a name in a hurry
    would believe to have stopped one that goes on trading.
    """
    found = _work(lambda store: store.read(state.every))
    if named is None:
        return found
    if named not in found:
        names = ", ".join(found) or "none yet"
        raise SettingsError(f"The store knows no agent {named}; it knows: {names}.")
    return {named: found[named]}


def _agent() -> str:
    """Whose mode is meant. Raises SettingsError where that is not clear."""
    settings = load_settings()
    if settings.agent_id:
        return desk.place_of(settings).book
    found = _known(None)
    if len(found) != 1:
        names = ", ".join(found) or "none yet"
        raise SettingsError(f"Name the agent with --agent; the store knows: {names}.")
    return next(iter(found))


def _show(found: dict[str, AgentState], *, as_json: bool) -> None:
    if as_json:
        failed_shown.say_json(found)
        return
    if not found:
        click.echo("No agent has worked on this store yet.")
        return
    table = Table("agent", "mode", "since", "why", "balance", "drawdown", "realised", "open")
    for agent, each in found.items():
        now, health = each.standing, each.health
        why = f"{now.reason}: {now.note}" if now.note and now.reason else now.reason
        balance = "unknown" if health.balance is None else str(health.balance)
        since = iso(now.since_ms) if now.since_ms else "its start"
        cells = (agent, now.mode, since, why, balance, f"{health.drawdown:.1%}")
        more = (str(each.realised), str(each.open_positions))
        table.add_row(*map(failed_shown.cell, (*cells, *more)))
    failed_shown.console().print(table)


def _work(task: Callable[[Store], Awaitable[T]]) -> T:
    """What `task` returns, given the store. Raises StoreError where it is not to be had."""

    async def work() -> T:
        store = open_store(load(StoreSettings).url, create=False)
        await store.open()
        try:
            return await task(store)
        finally:
            await store.close()

    try:
        return asyncio.run(work())
    except StateError as error:
        raise StoreError(f"{error} Nothing is changed; run it again.") from None
