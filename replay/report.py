"""What became of a run, message by message."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec


class Report(msgspec.Struct):
    """What a run did. Ids with a reason are in the queue as they were."""

    sent: int = 0
    refused: dict[str, str] = {}
    """Not sent: it changed since the plan, or would do nothing good now."""
    left: dict[str, str] = {}
    """Not confirmed: a full queue, no answer, or stopped before its turn."""
    gone: int = 0
    """Planned and not there: sent before, or in the hands of somebody else."""
    stopped: str = ""
    """Why it ended before its end."""

    @property
    def is_complete(self) -> bool:
        """Whether all that was planned is sent or was gone already."""
        return not (self.refused or self.left or self.stopped)

    def leave(self, ids: Iterable[str], why: str) -> None:
        """Note that these were not sent, all for one reason."""
        self.left.update(dict.fromkeys(ids, why))
