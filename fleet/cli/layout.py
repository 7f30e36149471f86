"""The layout as a person reads it: where an event goes, and what each queue is."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import groupby

from rich.console import Console
from rich.markup import escape
from rich.tree import Tree

from topology.model import Arguments, Binding, Exchange, Plan, Queue

PIPE_WIDTH = 160  # where no terminal says how wide it is
_NUMBER = re.compile(r"\.\d+\Z")


def show_plan(plan: Plan, console: Console | None = None) -> None:
    """Print the plan as two trees: the ways through the exchanges, and the queues."""
    console = console or Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=PIPE_WIDTH, file=console.file)
    console.print(_ways(plan))
    console.print(_queues(plan.queues))


def _ways(plan: Plan) -> Tree:
    tree = Tree("[bold]exchanges[/]: what an event meets on its way")
    inner = {each.destination for each in plan.bindings if each.to == "exchange"}
    for exchange in reversed(plan.exchanges):
        if exchange.name not in inner:
            _branch(tree, exchange, plan)
    return tree


def _branch(tree: Tree, exchange: Exchange, plan: Plan) -> None:
    branch = tree.add(f"[cyan]{exchange.name}[/] {exchange.kind}: [dim]{exchange.note}[/]")
    leaving = [each for each in plan.bindings if each.source == exchange.name]
    to_queues = [each for each in leaving if each.to == "queue"]
    for _, group in groupby(to_queues, key=_run):
        branch.add(_way([*group]))
    for each in leaving:
        if each.to == "exchange":
            below = branch.add(f"{escape(each.key)} ->")
            _branch(below, next(e for e in plan.exchanges if e.name == each.destination), plan)
    if other := exchange.arguments.get("alternate-exchange"):
        branch.add(f"[dim]nothing matched ->[/] [cyan]{other}[/]")


def _run(binding: Binding) -> tuple[str, str]:
    """What bindings have in common that differ only in a number."""
    key = _NUMBER.sub(".n", binding.key)
    return _NUMBER.sub(".n", binding.destination), key


def _way(run: list[Binding]) -> str:
    first, last = run[0], run[-1]
    on, until = _condition(first), _condition(last)
    keys = on if on == until else f"{on} … {until}"
    return f"{escape(keys)} -> [green]{_names(first.destination, last.destination)}[/]"


def _condition(binding: Binding) -> str:
    compared = {k: v for k, v in binding.arguments.items() if k != "x-match"}
    return binding.key or _spoken(compared) or "everything"


def _queues(queues: Iterable[Queue]) -> Tree:
    tree = Tree("[bold]queues[/]: durable, with their arguments")
    for _, group in groupby(queues, key=lambda queue: _NUMBER.sub(".n", queue.name)):
        run = [*group]
        first, last = run[0], run[-1]
        note = first.note if first.note == last.note else f"{first.note} … {last.note}"
        names = _names(first.name, last.name)
        tree.add(f"[green]{names}[/]: {note}\n[dim]{escape(_spoken(first.arguments))}[/]")
    return tree


def _names(first: str, last: str) -> str:
    return first if first == last else f"{first} … {last.rpartition('.')[2]}"


def _spoken(arguments: Arguments) -> str:
    return ", ".join(f"{key}={value}" for key, value in arguments.items())
