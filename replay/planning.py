"""Looks at a queue and says what a replay of the selected messages would do; changes nothing."""

from __future__ import annotations

from fleet import clock
from fleet.amqp.harvest import Held
from replay import plan as plans
from replay.entry import Entry, iso
from replay.place import Place
from replay.plan import Plan
from replay.selection import Selection
from replay.sending import Edit
from replay.verdict import Judge, Reading


async def make_plan(
    place: Place,
    judge: Judge,
    selection: Selection,
    *,
    limit: int = 0,
    effect_key: str = "",
    edit: Edit | None = None,
) -> Plan:
    """The plan for what is selected, the oldest events first; at most `limit` where that is set.

    With `effect_key`, only what has that effect; with `edit`, as the edited body would be handled.
    No body is held. Raises what `edit` raises.
    """
    readings: list[Reading] = []
    at_ms = clock.now_ms()

    def seen(entry: Entry, held: Held) -> bool:
        if selection.matches(entry, held.body):
            body = edit(held.body) if edit else held.body
            reading = judge.read(entry, body, at_ms)
            if not effect_key or reading.effect_key == effect_key:
                readings.append(reading)
        return True

    await place.look(seen)
    # By id, which is by time: a queue that was looked into may have another order each time.
    readings.sort(key=lambda reading: reading.entry.id)
    readings = readings[: limit or None]
    known = await place.know(judge, readings)
    return Plan(
        version=plans.VERSION,
        service=place.service.name,
        queue=place.queue,
        made_at=iso(at_ms),
        made_by=place.operator,
        selection=selection,
        even_if_stale=judge.even_if_stale,
        items=tuple(plans.item(each.entry, judge.judge(each, known)) for each in readings),
    )
