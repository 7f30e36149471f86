"""Where alerts go."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from fleet.settings import is_address, load


class AlertSettings(BaseSettings):
    """The environment of the alerts' sinks; `load_alerts` reads it."""

    model_config = SettingsConfigDict(
        extra="ignore", populate_by_name=True, frozen=True, hide_input_in_errors=True
    )

    webhook_url: SecretStr = Field(default=SecretStr(""), validation_alias="ALERT_WEBHOOK_URL")
    webhook_secret: SecretStr = Field(
        default=SecretStr(""), validation_alias="ALERT_WEBHOOK_SECRET"
    )
    apprise_urls: SecretStr = Field(default=SecretStr(""), validation_alias="APPRISE_URLS")
    severity: Literal["info", "warning", "critical"] = Field(
        default="warning", validation_alias="ALERT_SEVERITY"
    )

    @field_validator("webhook_url")
    @classmethod
    def _is_address(cls, value: SecretStr) -> SecretStr:
        url = value.get_secret_value()
        if url and not is_address(url, frozenset({"http", "https"})):
            raise ValueError("write an address, https://host/path")
        return value

    def apprise(self) -> list[str]:
        """The addresses for Apprise, one for each sink; secret."""
        return self.apprise_urls.get_secret_value().replace(",", " ").split()


def load_alerts() -> AlertSettings:
    """The settings from the environment. Raises SettingsError, in one sentence, without values."""
    return load(AlertSettings)
