"""What the broker's user may not do, as a sentence for the operator."""

from __future__ import annotations

import re
from typing import Final

from aiormq.exceptions import ChannelAccessRefused

from fleet.core.errors import BrokerError

# 3.x says "access to exchange", 4.x "write access to exchange", topics "write access to topic".
_REFUSED: Final = re.compile(
    r"access to (?:topic '[^']*' in )?(?P<kind>\w+) '(?P<name>[^']*)' in vhost '[^']*'"
    r" refused for user '(?P<user>[^']*)'"
)
_DOING: Final = {"queue": "read from", "exchange": "publish to"}


def refusal(error: BaseException) -> BrokerError | None:
    """The sentence, where the error says that our user may not do something; else None.

    A queue that somebody consumes alone is refused with the same number, and soon free again.
    """
    if not isinstance(error, ChannelAccessRefused):
        return None
    found = _REFUSED.search(" ".join(str(part) for part in error.args))
    if found is None:
        return None
    doing = f"{_DOING.get(found['kind'], 'use')} the {found['kind']} {found['name'] or '(default)'}"
    return BrokerError(
        f"The broker's user {found['user']!r} may not {doing};"
        " give it the permission (`fleet topology users`) or set AMQP_URL to another user's."
    )
