"""Why the stream is not to be had, in words."""

from __future__ import annotations

import ssl
from typing import Final

from websockets.exceptions import InvalidMessage, InvalidStatus

from fleet.core.errors import SettingsError

_FINAL: Final = {
    401: "The stream refuses the agent's key (401); correct PF_AGENT_KEY and PF_AGENT_ID.",
    403: "The stream refuses the agent's key (403); correct PF_AGENT_KEY and PF_AGENT_ID.",
    404: "There is no stream at PF_STREAM_URL (404); correct its path.",
}
LONGEST: Final = 200


def final(error: Exception) -> SettingsError | None:
    """The error for the operator, where trying again without them cannot help."""
    sentence = _FINAL.get(error.response.status_code) if isinstance(error, InvalidStatus) else None
    return SettingsError(sentence) if sentence else None


def reason(error: Exception) -> str:
    """What was wrong with a connection, in one bounded line."""
    if isinstance(error, InvalidStatus):
        code = error.response.status_code
        return f"PF_STREAM_URL answers with HTTP {code} where a WebSocket was asked for"
    if isinstance(error, InvalidMessage):
        return "what listens at PF_STREAM_URL does not speak HTTP"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the certificate at PF_STREAM_URL is not good: {error.verify_message}"
    if isinstance(error, ssl.SSLError) and error.reason == "WRONG_VERSION_NUMBER":
        return "what listens at PF_STREAM_URL does not speak TLS"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return " ".join(str(error).split())[:LONGEST] or type(error).__name__
