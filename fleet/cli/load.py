"""Finds a service by the name a user writes: `module:name`."""

from __future__ import annotations

import importlib
import inspect
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Final, Protocol, runtime_checkable

from fleet.cli.settings import CommandSettings
from fleet.core.errors import OperatorError, SettingsError
from fleet.core.redact import redact
from fleet.settings import load
from topology.model import ServiceLayout

LONGEST: Final = 300
TOLD_HANDLERS: Final = "$HANDLERS, else agent.handlers:service"


@runtime_checkable
class Service(Protocol):
    """What handlers are gathered in."""

    def layout(self) -> ServiceLayout:
        """What the service asks of the broker."""


def told_handlers() -> str:
    """The service that a command is about where its `--handlers` does not say."""
    return load(CommandSettings).handlers


def load_service(text: str) -> Service:
    """The service at `module:name`, or what the function there returns.

    Modules of the working directory count.
    Raises SettingsError, one sentence, where there is none.
    """
    if "," in text:
        raise SettingsError(f"{text!r} names more than one; a worker takes one service.")
    module_name, _, name = text.strip().partition(":")
    if not module_name or not name:
        raise SettingsError(f"{text!r} names no service; write module:name.")
    found = getattr(_load(module_name), name, None)
    if found is None:
        raise SettingsError(
            f"Module {module_name} has no {name}; correct --handlers (or HANDLERS)."
        )
    if inspect.isfunction(found):
        found = _made(f"{name} in module {module_name}", found)
    if isinstance(found, type) or not isinstance(found, Service):
        raise SettingsError(
            f"{name} in module {module_name} is a {type(found).__name__} without a layout,"
            " not a service; correct --handlers."
        )
    return found


def load_services(text: str) -> tuple[Service, ...]:
    """The services at `module:name,module:name`; at least one."""
    return tuple(load_service(each) for each in text.split(","))


def _made(where: str, factory: Callable[..., object]) -> object:
    if inspect.iscoroutinefunction(factory) or _needs_arguments(factory):
        raise SettingsError(
            f"{where} is a function that takes arguments or is async: name the Service,"
            " not a handler."
        )
    try:
        return factory()
    except OperatorError:
        raise
    except (Exception, SystemExit) as error:
        raise SettingsError(f"{where} makes no service: {_said(error)}") from error


def _needs_arguments(function: Callable[..., object]) -> bool:
    try:
        inspect.signature(function).bind()
    except TypeError:
        return True
    return False


def _load(name: str) -> ModuleType:
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)  # an installed command does not look where the user stands
    try:
        return importlib.import_module(name)
    except OperatorError:
        raise
    except (Exception, SystemExit) as error:
        if isinstance(error, ModuleNotFoundError) and _is_or_holds(error.name, name):
            raise SettingsError(
                f"There is no module {name} here; correct --handlers (or HANDLERS),"
                " or go to its folder."
            ) from None
        raise SettingsError(f"Module {name} cannot be imported: {_said(error)}") from error


def _is_or_holds(missing: str | None, name: str) -> bool:
    return bool(missing) and f"{name}.".startswith(f"{missing}.")


def _said(error: BaseException) -> str:
    """What was raised, and where in the user's own file, as the end of a sentence."""
    reason = redact(" ".join(str(error).split()))[:LONGEST] or "no reason given"
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename != __file__ and "importlib" not in frame.filename
    ]
    line = f" (line {frames[-1].lineno} of {Path(frames[-1].filename).name})" if frames else ""
    return f"{type(error).__name__}: {reason.rstrip('.')}{line}."
