"""What a source promises to the bridge."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from typing import Protocol, TypeAlias


@dataclass(frozen=True, slots=True)
class Gap:
    """Something after the cursor `after` cannot be had any more; the next frame is beyond it."""

    after: str
    reason: str


Arrival: TypeAlias = bytes | Gap


class Source(Protocol):
    """One way in. It keeps its own connection alive and comes back for ever."""

    @property
    def name(self) -> str:
        """The name under which the source's cursor is kept."""
        ...

    @property
    def connected(self) -> bool:
        """Whether a frame could come now."""
        ...

    def frames(self, resume_from: Callable[[], str]) -> AsyncGenerator[Arrival, None]:
        """Raw frames in order of arrival, and the gaps between them.

        Whenever it connects, it asks `resume_from` for the id after which to go on ("" for
        none). It reads on only as fast as it is asked, so that a slow caller slows the sender.
        Raises SettingsError where the other side refuses the credentials from the start.
        """
        ...
