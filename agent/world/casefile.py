"""What is kept of each event about a job or an escrow, so that a dispute finds it."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from fleet.store import cases
from workers.context import Context

LARGEST: Final = 16_384
"""Characters of a payload that are kept; one with more is kept as the text that it begins with."""

_encode = msgspec.json.Encoder(decimal_format="string").encode


def note(ctx: Context, *, job: str = "", escrow: str = "") -> None:
    """Keep this event in the case files of its job and its escrow."""
    event, body = ctx.event, _body(ctx.event.payload)
    entries = [
        cases.Entry(ctx.app.agent, subject, event.event_id, event.type, body, ctx.now_ms)
        for subject in subjects(job, escrow)
    ]
    ctx.write(lambda tx: cases.add(tx, entries))


def subjects(job: str, escrow: str) -> list[str]:
    """The names of the case files of a job and an escrow; what is empty has none."""
    return [f"{kind}/{name}" for kind, name in (("job", job), ("escrow", escrow)) if name]


def _body(payload: dict[str, Any]) -> str:
    body = _encode(payload).decode()
    if len(body) <= LARGEST:
        return body
    return _encode({"characters": len(body), "begins": body[:LARGEST]}).decode()
