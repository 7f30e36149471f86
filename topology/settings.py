"""Where the broker is."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, SecretStr, ValidationInfo, field_validator

from fleet.settings import AmqpSettings, read_secret, with_password


class TopologySettings(AmqpSettings):
    """The broker, and `MANAGEMENT_URL` where the management API is not on its usual port.

    Where that names a user without a password, it has been given it.
    """

    management_password: SecretStr = Field(
        default=SecretStr(""), validation_alias="MANAGEMENT_PASSWORD"
    )
    management_password_file: Path | None = Field(
        default=None, validation_alias="MANAGEMENT_PASSWORD_FILE"
    )
    management_url: str | None = Field(default=None, validation_alias="MANAGEMENT_URL", repr=False)

    @field_validator("management_url")
    @classmethod
    def _with_password(cls, url: str | None, info: ValidationInfo) -> str | None:
        # Who names no user means AMQP_URL's, which has its own password.
        if url is None or "@" not in url:
            return url
        told = info.data
        password = told["management_password"].get_secret_value() or read_secret(
            "MANAGEMENT_PASSWORD_FILE", told.get("management_password_file")
        )
        return with_password(url, password)
