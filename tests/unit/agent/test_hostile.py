"""Whatever stands in an event: nothing is paid that was not agreed, and nothing is a bug."""

from __future__ import annotations

import random
from decimal import Decimal
from typing import Any

import msgspec

from fleet.core.decision import Fail
from fleet.core.errors import DataError
from fleet.core.events import read_event, write_event
from fleet.core.payloads import KNOWN, BalanceChanged

HIRED = "pf_agent_hired"
EVENTS = 500
KINDS = sorted(KNOWN.keys() - {"market.tick", "order.requested", "order.close_requested"})
AMOUNTS = (0, 1, 10, -1, Decimal("-12.34"), Decimal("1e-18"), 10**14, 10**15, "NaN", True, None)
TEXTS = ("j1", "e1", "e2", HIRED, "", "warning", "a\0b", "a\nb", "🚀", "x" * 5000, "../x", [], {})


def value(name: str, chance: random.Random) -> Any:
    """A value for a field, mostly of its kind."""
    is_money = "usdc" in name or name in ("open", "high", "low", "close", "volume")
    return chance.choice(AMOUNTS if is_money == (chance.random() < 0.95) else TEXTS)


async def test_nothing_hostile_pays_or_is_a_bug(world: Any) -> None:
    """Half a thousand events of every kind: done, skipped or refused as data, and no call."""
    place = await world(
        fallback_agent="pf_agent_second", faucet=True, income_policy="hire", hire_agent=HIRED
    )
    await place.hired("j1")
    chance, handled = random.Random(7), 0  # noqa: S311 - the same each time
    for _ in range(EVENTS):
        kind = chance.choice(KINDS)
        payload = {name: value(name, chance) for name in KNOWN[kind].__struct_fields__}
        event = place.event(BalanceChanged(Decimal(1)), kind, place.now + chance.randint(-5, 5))
        event = msgspec.structs.replace(event, payload=payload)
        try:
            decision = await place.run(read_event(write_event(event), event.ts, payload=False))
        except DataError:  # the runtime fails it before the handler
            continue
        handled += 1
        assert not isinstance(decision, Fail) or decision.failure.error_class == "data", decision
    assert handled > EVENTS / 5
    assert not place.done()
