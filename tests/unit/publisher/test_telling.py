"""What may happen often is told, and does not flood."""

from __future__ import annotations

from structlog.testing import capture_logs

from publisher.telling import EVERY_S, Telling


def test_told_at_once_then_counted():
    """The first is a line; later ones are counted until the time has come; none is left untold."""
    now = 0.0
    with capture_logs() as lines:
        telling = Telling("odd", clock=lambda: now)
        telling.due(now=True)
        for number in range(1000):
            telling.note(reason=str(number))
        telling.due()
        now = EVERY_S
        telling.due()
        telling.due()
        telling.note(reason="last")
        telling.due(now=True)
    told = [(line["event"], line["count"], line["reason"]) for line in lines]
    assert told == [("odd", 1, "0"), ("odd", 999, "999"), ("odd", 1, "last")]
