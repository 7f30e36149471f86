"""What operators and repeated failures withhold from the workers."""

from __future__ import annotations

import pytest

from fleet.core.errors import SettingsError
from fleet.store import Store, Tx, archive, controls
from fleet.store.controls import Halt, Pause


def pause(service: str = "svc", pattern: str = "*", note: str = "because") -> Pause:
    """A pause by an operator."""
    return Pause(service, pattern, note, "ada", 1_000)


HALT = Halt("svc", "on_order", "f" * 12, "ValueError: odd", "w-1", "pf_agent_1", 5_000)


async def test_a_service_hears_of_its_own_pauses_and_of_those_of_all(store: Store):
    """What is paused elsewhere is nobody else's business."""
    for each in (pause(), pause("other"), pause("*", "order.*")):
        assert await store.run(lambda tx, each=each: controls.pause(tx, each))
    mine = await store.read(lambda tx: controls.of(tx, "svc"))
    assert {(each.service, each.pattern) for each in mine.pauses} == {
        ("svc", "*"),
        ("*", "order.*"),
    }
    assert len((await store.read(controls.every)).pauses) == 3


async def test_a_second_pause_keeps_the_time_of_the_first(store: Store):
    """The pause goes on; its note is the latest."""
    await store.run(lambda tx: controls.pause(tx, pause()))
    again = Pause("svc", "*", "longer", "bob", 9_000)
    assert not await store.run(lambda tx: controls.pause(tx, again))
    found = (await store.read(controls.every)).pauses
    assert found == (Pause("svc", "*", "longer", "bob", 1_000),)


async def test_what_is_resumed_is_withheld_no_longer_and_is_on_record(store: Store):
    """Both the pause and its end say who, why and when."""
    await store.run(lambda tx: controls.pause(tx, pause()))
    lifted = await store.run(
        lambda tx: controls.resume(tx, (pause(), pause("x")), operator="bob", note="ok", now_ms=7)
    )
    assert lifted == (pause(),)
    assert (await store.read(controls.every)).pauses == ()
    done = await store.read(lambda tx: archive.interventions(tx, "*"))
    assert [(each.action, each.operator, each.note) for each in done] == [
        ("resume", "bob", "ok"),
        ("pause", "ada", "because"),
    ]


async def test_a_handler_is_halted_once_and_released_once(store: Store):
    """The first worker that halts it is the one that tells; a second release is refused."""
    assert await store.run(lambda tx: controls.halt(tx, HALT))
    assert not await store.run(lambda tx: controls.halt(tx, HALT))
    await store.run(lambda tx: controls.told(tx, HALT))
    found = (await store.read(lambda tx: controls.of(tx, "svc"))).halts
    assert [(each.handler, each.told) for each in found] == [("on_order", True)]

    def release(tx: Tx) -> Halt:
        return controls.release(tx, "svc", "on_order", operator="ada", note="mended", now_ms=9)

    lifted = await store.run(release)
    assert lifted.fingerprint == HALT.fingerprint
    with pytest.raises(SettingsError, match="is not halted"):
        await store.run(release)
