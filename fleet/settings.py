"""Reading settings: what is wrong is one sentence that names the variable and not its value."""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from fleet.core.errors import DataError, SettingsError
from fleet.core.signature import Key, Keys

KEY_PREFIX: Final = "pf_live_"
KEY_FILE_BYTES: Final = 4096
TLS_FILES: Final = ("cafile", "certfile", "keyfile")
NEAR: Final = frozenset({"localhost", "::1"})
AMQP_URL: Final = "amqp://guest:guest@127.0.0.1:5672/"
_KEY = re.compile(r"pf_live_[A-Za-z0-9_.\-]+\Z")
_AGENT = re.compile(r"[A-Za-z0-9_.\-]{1,128}\Z")

_BETWEEN = re.compile(r"\s*,\s*(?=amqps?://)", re.IGNORECASE)

Settings = TypeVar("Settings", bound=BaseSettings)


class AmqpSettings(BaseSettings):
    """Where the broker is.

    Each address of `amqp_url` that lacks a password has been given it, and the files of TLS.
    """

    model_config = SettingsConfigDict(
        extra="ignore", populate_by_name=True, hide_input_in_errors=True, env_ignore_empty=True
    )

    amqp_url_file: Path | None = Field(default=None, validation_alias="AMQP_URL_FILE")
    amqp_password: SecretStr = Field(default=SecretStr(""), validation_alias="AMQP_PASSWORD")
    amqp_password_file: Path | None = Field(default=None, validation_alias="AMQP_PASSWORD_FILE")
    amqp_ca_file: Path | None = Field(default=None, validation_alias="AMQP_CA_FILE")
    amqp_cert_file: Path | None = Field(default=None, validation_alias="AMQP_CERT_FILE")
    amqp_key_file: Path | None = Field(default=None, validation_alias="AMQP_KEY_FILE")
    amqp_url: str = Field(
        default="", validation_alias="AMQP_URL", validate_default=True, repr=False
    )

    @field_validator("amqp_url")
    @classmethod
    def _whole(cls, url: str, info: ValidationInfo) -> str:
        # In the order of the fields: what is told of files and password is known by now.
        told = info.data
        url = url or read_secret("AMQP_URL_FILE", told.get("amqp_url_file")) or AMQP_URL
        password = told["amqp_password"].get_secret_value() or read_secret(
            "AMQP_PASSWORD_FILE", told.get("amqp_password_file")
        )
        files = {name: told.get(f"amqp_{name[:-4]}_file") for name in TLS_FILES}
        tls = {name: str(path) for name, path in files.items() if path not in (None, Path())}
        return ",".join(with_files(with_password(each, password), tls) for each in addresses(url))

    @field_validator("amqp_ca_file", "amqp_cert_file", "amqp_key_file")
    @classmethod
    def _is_there(cls, path: Path | None) -> Path | None:
        return _readable(path)


class SigningSettings(BaseSettings):
    """The keys that events are signed with and believed by; none: neither is done."""

    model_config = SettingsConfigDict(
        extra="ignore", populate_by_name=True, hide_input_in_errors=True
    )

    signing_key: SecretStr = Field(default=SecretStr(""), validation_alias="SIGNING_KEY")
    signing_key_file: Path | None = Field(default=None, validation_alias="SIGNING_KEY_FILE")
    signing_keys: SecretStr = Field(default=SecretStr(""), validation_alias="SIGNING_KEYS")
    signing_keys_file: Path | None = Field(default=None, validation_alias="SIGNING_KEYS_FILE")

    def keys(self) -> Keys | None:
        """The keys; None where nothing is signed. Raises SettingsError, without any of them."""
        key = self.signing_key.get_secret_value() or read_secret(
            "SIGNING_KEY_FILE", self.signing_key_file
        )
        others = self.signing_keys.get_secret_value() or read_secret(
            "SIGNING_KEYS_FILE", self.signing_keys_file
        )
        if others.strip() and not key.strip():
            raise SettingsError("SIGNING_KEYS has keys to believe; SIGNING_KEY must say ours.")
        if not key.strip():
            return None
        known = [_key("SIGNING_KEYS", each) for each in re.split(r"[,\s]+", others) if each]
        return Keys(_key("SIGNING_KEY", key), known)


class PlatformSettings(BaseSettings):
    """Who we are at the platform: the agent's id, and its key or the file that holds it."""

    model_config = SettingsConfigDict(
        extra="ignore", populate_by_name=True, frozen=True, hide_input_in_errors=True
    )

    agent_id: str = Field(default="", validation_alias="PF_AGENT_ID")
    agent_key: SecretStr = Field(default=SecretStr(""), validation_alias="PF_AGENT_KEY")
    agent_key_file: Path | None = Field(default=None, validation_alias="PF_AGENT_KEY_FILE")
    ca_file: Path | None = Field(default=None, validation_alias="PF_CA_FILE")
    insecure: bool = Field(default=False, validation_alias="PF_INSECURE")

    @field_validator("ca_file")
    @classmethod
    def _is_there(cls, path: Path | None) -> Path | None:
        return _readable(path)

    def tls(self) -> ssl.SSLContext:
        """What the platform's certificate is verified with. Raises SettingsError."""
        try:
            named = self.ca_file if self.ca_file not in (None, Path()) else None
            return ssl.create_default_context(cafile=named)
        except (OSError, ValueError):
            raise SettingsError("PF_CA_FILE has no certificates; name a PEM file.") from None

    def agent(self) -> str:
        """The agent's id. Raises SettingsError where it is none."""
        if not self.agent_id:
            raise SettingsError("PF_AGENT_ID is missing; set it to the agent's id.")
        if not _AGENT.match(self.agent_id):
            raise SettingsError(
                "PF_AGENT_ID is wrong: write the agent's id: letters, digits, '_', '.' and '-'."
            )
        return self.agent_id

    def key(self) -> str:
        """The platform key. Raises SettingsError where it is none; its value is not repeated."""
        name, key = "PF_AGENT_KEY", self.agent_key.get_secret_value().strip()
        if not key:
            name, key = "PF_AGENT_KEY_FILE", read_secret("PF_AGENT_KEY_FILE", self.agent_key_file)
        if not key:
            raise SettingsError("PF_AGENT_KEY is missing; set it or PF_AGENT_KEY_FILE.")
        if key.startswith("sk_live_"):
            raise SettingsError(
                f"{name} has an owner's secret key (sk_live_…); "
                f"give the fleet an agent's key ({KEY_PREFIX}…)."
            )
        if not _KEY.match(key):
            raise SettingsError(f"{name} has no agent's key; one begins with {KEY_PREFIX}.")
        return key


def _readable(path: Path | None) -> Path | None:
    if path is None or path == Path():  # an empty variable is no file
        return None
    try:
        with path.open("rb"):
            return path
    except OSError as error:
        raise ValueError(f"it cannot be read: {error.strerror}") from None


def _key(name: str, text: str) -> Key:
    try:
        return Key.read(text)
    except DataError as error:
        raise SettingsError(f"{name} is wrong: {error}.") from None


def load(kind: type[Settings], **given: Any) -> Settings:
    """The settings of a class: what is given, and the rest from the environment.

    Raises SettingsError for the first that is missing or wrong.
    """
    try:
        return kind(**given)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        name = _variable(kind, str(first["loc"][0]) if first["loc"] else "")
        if first["type"] == "missing":
            raise SettingsError(f"{name} is missing; set it.") from None
        reason = first["msg"].removeprefix("Value error, ")
        raise SettingsError(f"{name} is wrong: {reason}.") from None


def is_near(host: str) -> bool:
    """Whether it is this machine, or a name without a dot: that of a private network."""
    return host in NEAR or host.startswith("127.") or not ({".", ":"} & set(host))


def check_safe(url: str, *, insecure: bool) -> None:
    """Raise ValueError for an address that would carry the key openly over a network.

    Plain is fine to what is near.
    """
    parts = urlsplit(url)
    if parts.scheme in ("http", "ws") and not (insecure or is_near(parts.hostname or "")):
        raise ValueError(
            f"{parts.scheme}:// sends the agent's key openly; write {parts.scheme}s://, or set"
            " PF_INSECURE=1 where the network is your own"
        )


def with_files(url: str, files: Mapping[str, str]) -> str:
    """An AMQP address with the files of TLS that it does not name itself.

    Raises ValueError where they are for an address that is not encrypted.
    """
    if not files:
        return url
    if not url.lower().startswith("amqps:"):
        raise ValueError("AMQP_CA_FILE, AMQP_CERT_FILE and AMQP_KEY_FILE are for amqps:// only")
    known = dict(parse_qsl(urlsplit(url).query))
    more = urlencode({name: path for name, path in files.items() if name not in known})
    return f"{url}{'&' if '?' in url else '?'}{more}" if more else url


def is_address(text: str, schemes: frozenset[str]) -> bool:
    """Whether it is a URL of one of these schemes with a host, and with a port that can be."""
    try:
        parts = urlsplit(text)
        return parts.scheme in schemes and bool(parts.hostname) and parts.port != 0
    except ValueError:  # its text would repeat what was written
        return False


def inherited(*, without: tuple[str, ...] = ()) -> dict[str, str]:
    """Our environment for a child process, but for variables that begin with any of `without`."""
    return {name: value for name, value in os.environ.items() if not name.startswith(without)}


def _variable(kind: type[BaseSettings], name: str) -> str:
    """The name that a user writes: the field's alias where it has one."""
    field = kind.model_fields.get(name)
    alias = field.validation_alias if field else None
    prefix = (kind.model_config.get("env_prefix") or "") if field else ""
    return (alias if isinstance(alias, str) else prefix + name).upper()


def read_secret(name: str, path: Path | None) -> str:
    """The text of the file that the variable `name` names; empty where it names none.

    Without the white space around it. An empty variable is no file: compose files pass on what
    is not set as "". Raises SettingsError where it cannot be read.
    """
    if path is None or path == Path():
        return ""
    try:
        with path.open("rb") as file:
            content = file.read(KEY_FILE_BYTES + 1)
        if len(content) > KEY_FILE_BYTES:
            raise SettingsError(
                f"{name} names a file of more than {KEY_FILE_BYTES} bytes;"
                " name one that holds the secret alone."
            )
        return content.decode("utf-8").strip()
    except (OSError, UnicodeDecodeError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no text"
        raise SettingsError(f"{name} cannot be read: {reason}.") from None


def addresses(urls: str) -> list[str]:
    """The broker's addresses, written with commas between; at least one.

    A comma inside an address, as in a password, is none of these.
    """
    return _BETWEEN.split(urls.strip())


def with_password(url: str, password: str) -> str:
    """An address with this password, where it has none of its own; its user is guest by default."""
    head, separator, rest = url.partition("://")
    who, at, place = rest.rpartition("@")
    if not (password and separator) or ":" in who:
        return url
    return f"{head}://{who if at else 'guest'}:{quote(password, safe='')}@{place}"
