"""The error tree drawn at the top of errors.py is the tree of the classes."""

from __future__ import annotations

import inspect

import pytest

from fleet.core import errors

CLASSES = [
    kind
    for _, kind in inspect.getmembers(errors, inspect.isclass)
    if kind.__module__ == errors.__name__
]


def drawn() -> dict[str, str]:
    """Each class in the drawing with the one above it."""
    parents: dict[str, str] = {}
    path: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        name = line.lstrip("│├└─ ").partition(" ")[0]
        if not name.endswith("Error") and not name.startswith("Publish"):
            continue
        depth = (len(line) - len(line.lstrip("│├└─ "))) // 4
        path[depth:] = [name]
        parents[name] = path[depth - 1] if depth else "Exception"
    return parents


def test_the_drawing_is_the_tree():
    """Every class stands in the drawing, under its base."""
    assert drawn() == {kind.__name__: kind.__bases__[0].__name__ for kind in CLASSES}


@pytest.mark.parametrize("kind", CLASSES)
def test_an_error_speaks_without_being_told(kind: type[errors.FleetError]):
    """A class's docstring is its default message, one sentence; a given one wins."""
    said = str(kind())
    assert said.endswith(".")
    assert "\n" not in said
    assert str(kind("Said.")) == "Said."
    assert kind.error_class in {"network", "api", "data", "logic", "state", "resource"}
