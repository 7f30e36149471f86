"""The options that most commands have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from fleet.cli.load import TOLD_HANDLERS, told_handlers

F = TypeVar("F", bound=Callable[..., Any])

as_json = click.option("--json", "as_json", is_flag=True, help="JSON on stdout.")


def of_service(text: str) -> Callable[[F], F]:
    """Give a command `--handlers`, one service, of which its help says `text`."""
    return _handlers("MODULE:NAME", text)


def of_services(text: str) -> Callable[[F], F]:
    """The same for several services."""
    return _handlers("MODULE:NAME[,…]", text)


def _handlers(metavar: str, text: str) -> Callable[[F], F]:
    return click.option(
        "--handlers",
        default=told_handlers,
        show_default=TOLD_HANDLERS,
        metavar=metavar,
        help=text,
    )
