"""Finds a service by the name a user writes: `module:name`."""

from __future__ import annotations

import importlib
import inspect
import sys
from pathlib import Path
from types import ModuleType
from typing import Protocol, runtime_checkable

from fleet.core.errors import FleetError, SettingsError
from topology.model import ServiceLayout


@runtime_checkable
class Service(Protocol):
    """What handlers are gathered in."""

    def layout(self) -> ServiceLayout:
        """What the service asks of the broker."""


def load_service(text: str) -> Service:
    """The service at `module:name`, or what the function there returns.

    Modules of the working directory count.
    Raises SettingsError, one sentence, where there is none.
    """
    module_name, _, name = text.strip().partition(":")
    if not module_name or not name:
        raise SettingsError(f"{text!r} names no service; write module:name.")
    found = getattr(_load(module_name), name, None)
    if inspect.isfunction(found):
        found = found()
    if found is None:
        raise SettingsError(f"Module {module_name} has no {name}; correct --handlers.")
    if isinstance(found, type) or not isinstance(found, Service):
        raise SettingsError(
            f"{name} in module {module_name} is a {type(found).__name__} without a layout,"
            " not a service; correct --handlers."
        )
    return found


def load_services(text: str) -> tuple[Service, ...]:
    """The services at `module:name,module:name`; at least one."""
    return tuple(load_service(each) for each in text.split(","))


def _load(name: str) -> ModuleType:
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)  # an installed command does not look where the user stands
    try:
        return importlib.import_module(name)
    except FleetError:
        raise
    except ModuleNotFoundError as error:
        if error.name and f"{name}.".startswith(f"{error.name}."):
            raise SettingsError(
                f"There is no module {name} here; correct --handlers or go to its folder."
            ) from None
        raise _broken(name, error) from error
    except Exception as error:
        raise _broken(name, error) from error


def _broken(name: str, error: Exception) -> SettingsError:
    reason = " ".join(str(error).split()) or "no reason given"
    return SettingsError(f"Module {name} cannot be imported: {type(error).__name__}: {reason}.")
