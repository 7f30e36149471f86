"""What makes a store do a transaction again instead of telling anybody."""

from __future__ import annotations

from fleet.core.errors import StateError


class OvertakenError(StateError):
    """The store changed under the transaction; try again.

    Nothing of the transaction is written. The store itself does it again, a few times.
    """
