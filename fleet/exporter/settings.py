"""How often the exporter asks, from the environment."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class ExporterSettings(BaseSettings):
    """`EXPORTER_EVERY_S` and `EXPORTER_AUDIT_EVERY_S`, in seconds."""

    model_config = SettingsConfigDict(extra="ignore", frozen=True, populate_by_name=True)

    every_s: float = Field(default=15.0, ge=1, le=3_600, validation_alias="EXPORTER_EVERY_S")
    audit_every_s: float = Field(default=900.0, ge=0, validation_alias="EXPORTER_AUDIT_EVERY_S")
    """0: never. An audit reads the whole log and looks into the failed queue."""
