"""Settings of the stand-in: keywords first, then SANDBOX_* from the environment."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from fleet.core.errors import SettingsError

DEMO_AGENT: Final = "pf_agent_sandbox"
DEMO_KEY: Final = "pf_live_sandbox"
_AGENT = re.compile(r"[A-Za-z0-9_.\-]{1,128}").fullmatch


def _live_key(key: SecretStr) -> SecretStr:
    text = key.get_secret_value()
    if not (text.startswith("pf_live_") and text.isascii() and text.isprintable()):
        raise ValueError("must begin with pf_live_ and be plain ASCII")
    return key


def _plain_id(text: str) -> str:
    if not _AGENT(text):
        raise ValueError("must be 1 to 128 letters, digits, '_', '.' and '-'")
    return text


def _speed(speed: object) -> object:
    if speed == "max":
        return speed
    try:
        number = float(str(speed))
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise ValueError("must be a number above 0, or max")
    return number


class SandboxSettings(BaseSettings):
    """How the stand-in listens, what it plays and how it behaves."""

    model_config = SettingsConfigDict(
        env_prefix="SANDBOX_",
        frozen=True,
        extra="forbid",
        hide_input_in_errors=True,
        env_ignore_empty=True,
    )

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65_535)] = 8765
    agent_id: Annotated[str, AfterValidator(_plain_id)] = DEMO_AGENT
    key: Annotated[SecretStr, AfterValidator(_live_key)] = SecretStr(DEMO_KEY)
    trades: Path | None = None
    speed: Annotated[Literal["max"] | float, BeforeValidator(_speed)] = 1.0
    events: Annotated[int, Field(ge=1)] | None = None
    seed: int = 1
    start_ms: Annotated[int, Field(ge=1)] | None = None  # of the made-up market; None is now
    script_every: Annotated[int, Field(ge=0)] = 200
    wait: bool = False
    idempotency: bool = True
    strict_tape: bool = False
    faults: str = ""
    buffer_seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 300.0
    buffer_events: Annotated[int, Field(ge=2)] = 500_000
    idle_seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 60.0


def load(**given: Any) -> SandboxSettings:
    """The settings, those that are None left to the environment and the defaults.

    Raises SettingsError with one sentence that names what is wrong, never its value.
    """
    try:
        return SandboxSettings(
            **{name: value for name, value in given.items() if value is not None}
        )
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        name = str(first["loc"][0]).replace("_", "-") if first["loc"] else "settings"
        reason = first["msg"].removeprefix("Value error, ")
        raise SettingsError(f"The sandbox's setting {name} is wrong: {reason}.") from None
