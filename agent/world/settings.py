"""What the agent is told from outside about its wallet, payments and hiring."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from agent.world.template import Template
from fleet.settings import load

Usdc = Annotated[Decimal, Field(ge=0, le=1_000_000, decimal_places=2)]
AgentId = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.\-]{0,128}$")]
Path_ = Annotated[str, Field(pattern=r"^/[!-~]{0,199}$")]


class WorldSettings(BaseSettings):
    """The environment of wallet, escrow and job handlers; `load_world` reads it.

    Paths are those of the platform's API; a body is JSON, in which a text "{name}" stands for a
    value: agent, recipient, amount, job, escrow, key.
    """

    model_config = SettingsConfigDict(
        extra="ignore", populate_by_name=True, frozen=True, hide_input_in_errors=True
    )

    faucet: bool = Field(default=False, validation_alias="FAUCET")
    faucet_every_s: Annotated[int, Field(ge=60, validation_alias="FAUCET_EVERY_S")] = 86_400
    income_policy: Literal["hold", "hire", "reinvest"] = Field(
        default="hold", validation_alias="INCOME_POLICY"
    )
    hire_agent: AgentId = Field(default="", validate_default=True, validation_alias="HIRE_AGENT")
    hire_usdc: Usdc = Field(default=Decimal(10), validation_alias="HIRE_USDC")
    fallback_agent: AgentId = Field(default="", validation_alias="FALLBACK_AGENT")
    evidence_dir: Path = Field(default=Path(".fleet/evidence"), validation_alias="EVIDENCE_DIR")
    resend: bool = Field(default=True, validation_alias="PF_RESEND")

    faucet_path: Path_ = Field(default="/api/faucet/claim", validation_alias="FAUCET_PATH")
    faucet_body: str = Field(default='{"agent": "{agent}"}', validation_alias="FAUCET_BODY")
    release_path: Path_ = Field(default="/api/escrow/release", validation_alias="RELEASE_PATH")
    release_body: str = Field(
        default='{"job_id": "{job}", "to": "{recipient}", "amount_usdc": "{amount}"}',
        validation_alias="RELEASE_BODY",
    )
    hire_path: Path_ = Field(default="/api/jobs", validation_alias="HIRE_PATH")
    hire_body: str = Field(
        default='{"agent": "{recipient}", "budget_usdc": "{amount}", "replaces": "{job}"}',
        validation_alias="HIRE_BODY",
    )
    reinvest_path: Path_ = Field(default="/api/wallet/deposit", validation_alias="REINVEST_PATH")
    reinvest_body: str = Field(
        default='{"amount_usdc": "{amount}", "escrow_id": "{escrow}"}',
        validation_alias="REINVEST_BODY",
    )

    @field_validator("faucet_body", "release_body", "hire_body", "reinvest_body")
    @classmethod
    def _is_template(cls, text: str) -> str:
        Template(text)
        return text

    @field_validator("hire_agent")
    @classmethod
    def _is_there(cls, value: str, info: ValidationInfo) -> str:
        if not value and info.data.get("income_policy") == "hire":
            raise ValueError("INCOME_POLICY is hire, so name the agent that is to be hired")
        return value


def load_world() -> WorldSettings:
    """The settings from the environment. Raises SettingsError, in one sentence, without values."""
    return load(WorldSettings)
