"""Which broker is chosen, as far as no broker is needed to see it."""

from __future__ import annotations

from pathlib import Path

import pytest

from fleet.broker import BrokerSettings, provide
from fleet.core.errors import BrokerError

NOWHERE = BrokerSettings(amqp_url="amqp://127.0.0.1:1/", kind=None)


def test_the_given_one_comes_first():
    """Where AMQP_URL is set it is used, and a wrong one is not quietly replaced."""
    with pytest.raises(BrokerError, match=r"127\.0\.0\.1:1 "):
        provide(NOWHERE)


def test_data_is_for_a_local_one(tmp_path: Path):
    """A folder for data and a container contradict each other."""
    with pytest.raises(BrokerError, match="--data"):
        provide(NOWHERE, kind="docker", data=tmp_path)


def test_settings_show_no_password():
    """Settings may be logged."""
    assert "s3cr3t" not in repr(BrokerSettings(amqp_url="amqp://me:s3cr3t@host/"))
