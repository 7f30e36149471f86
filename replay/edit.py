"""Mending a parked event: its payload changes, its identity does not. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any, Final

import msgspec

from fleet.core.errors import DataError, SettingsError
from fleet.core.events import Event, read_event
from workers.registry import Service

IDENTITY: Final = ("eventId", "type", "agentId", "ts")
_decode = msgspec.json.Decoder(float_hook=Decimal).decode
_encode = msgspec.json.Encoder(decimal_format="number").encode


def set_fields(body: bytes, changes: Sequence[str]) -> bytes:
    """The body with each `path=value` set; a value is JSON where it can be read as that, else text.

    Raises SettingsError where the body is no JSON object, a path leads nowhere, or nothing is set.
    """
    try:
        tree = _decode(body)
    except (msgspec.MsgspecError, RecursionError, ArithmeticError):
        raise SettingsError("The body is no JSON; use --edit to write it anew.") from None
    for change in changes:
        path, equals, value = change.partition("=")
        if not path or not equals:
            raise SettingsError(f"{change!r} sets nothing; write payload.field=value.")
        _set(tree, path.split("."), _value(value))
    return _encode(tree)


def mended(old: bytes, new: bytes, service: Service, now_ms: int) -> bytes:
    """`new` in place of `old`, where it can be handled and still is the same event.

    Raises SettingsError where it cannot be read, is for nobody, or has another id, type, agent,
    time or effect key.
    """
    try:
        event = read_event(new, now_ms)
        handler = service.find(event.type)
        if handler is None:
            raise SettingsError(f"Nobody in {service.name} handles {event.type}; nothing is sent.")
        payload = handler.read(event)
    except DataError as error:
        raise SettingsError(f"The edited event cannot be handled: {error}.") from None
    _check_identity(old, event)
    if handler.key is not None:
        before = _effect_key(service, old, now_ms)
        if before is not None and before != handler.key(payload):
            raise SettingsError(
                f"The edit changes the effect key {before}; that would be another order, so emit"
                " a new event for it."
            )
    return new


def _check_identity(old: bytes, event: Event) -> None:
    try:
        before = _decode(old)
    except (msgspec.MsgspecError, RecursionError, ArithmeticError):
        return  # nobody could read it: there is no identity to keep but the one in its headers
    after = {
        "eventId": event.event_id,
        "type": event.type,
        "agentId": event.agent_id,
        "ts": event.ts,
    }
    for name in IDENTITY:
        was = before.get(name) if isinstance(before, dict) else None
        if was is not None and was != after[name]:
            raise SettingsError(f"An edit keeps {name}; it was {str(was)[:60]!r}.")


def _effect_key(service: Service, body: bytes, now_ms: int) -> str | None:
    """The effect key of the body as it was; None where none could be made, so none was used."""
    try:
        event = read_event(body, now_ms)
        handler = service.find(event.type)
        return handler.key(handler.read(event)) if handler and handler.key else None
    except Exception:  # noqa: BLE001 - what cannot be read never had an effect
        return None


def _set(tree: Any, path: Sequence[str], value: Any) -> None:
    *parents, last = path
    for name in parents:
        tree = tree.get(name) if isinstance(tree, dict) else None
    if not isinstance(tree, dict):
        raise SettingsError(f"There is no {'.'.join(path)} in the body.")
    tree[last] = value


def _value(text: str) -> Any:
    try:
        return _decode(text.encode())
    except (msgspec.MsgspecError, RecursionError, ArithmeticError):
        return text
