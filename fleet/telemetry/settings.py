"""What a process tells of itself, and where: from the environment."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class HealthSettings(BaseSettings):
    """Where a process serves /metrics, /livez and /readyz."""

    model_config = SettingsConfigDict(extra="ignore", frozen=True)

    health_host: str = "127.0.0.1"
    """The address to listen at."""
    health_port: int = Field(default=0, ge=0, le=65_535)
    """0: nothing is served."""


class LogSettings(BaseSettings):
    """How log lines are written."""

    model_config = SettingsConfigDict(extra="ignore", frozen=True)

    log_format: Literal["auto", "console", "json"] = "auto"
    """auto: for people on a terminal, else JSON."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"


class TracingSettings(BaseSettings):
    """Where traces go; nowhere without an endpoint."""

    model_config = SettingsConfigDict(extra="ignore", frozen=True, env_ignore_empty=True)

    endpoint: str = Field(default="", validation_alias="OTEL_EXPORTER_OTLP_ENDPOINT")
    traces_endpoint: str = Field(default="", validation_alias="OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
