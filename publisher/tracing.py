"""A span for each event that the bridge publishes."""

from __future__ import annotations

from fleet.telemetry.spans import Spans, carrier, fail
from publisher.reading import Posting


class Tracing:
    """Begins a trace where an event enters, and writes it into the event's headers."""

    def __init__(self, spans: Spans) -> None:
        self._spans = spans

    def began(self, posting: Posting) -> None:
        """The posting is about to be sent, for the first time."""
        posting.span = span = self._spans.publish(
            posting.exchange, posting.routing_key, posting.cursor, len(posting.body)
        )
        posting.headers = {**posting.headers, **carrier(span)}

    def ended(self, posting: Posting) -> None:
        """It is confirmed, or will not be sent again."""
        if posting.shed is not None:
            fail(posting.span, "nacked", posting.shed.reason)
        posting.span.end()
