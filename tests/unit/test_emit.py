"""What `fleet emit` refuses, before it speaks with anybody."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from fleet.cli.emit import command
from fleet.core.errors import SettingsError

LOW = '{"balance_usdc": 1, "threshold_usdc": 2}'


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("wallet.low_balance", LOW), "PF_AGENT_ID"),
        (("wallet.low_balance", LOW, "--agent", "a b"), "agentId"),
        (("balance", "{}", "--agent", "me"), "type"),
        (("wallet.low_balance", "[1]", "--agent", "me"), "no JSON object"),
        (("wallet.low_balance", '{"balance_usdc": ', "--agent", "me"), "no JSON object"),
        (("wallet.low_balance", "{}", "--agent", "me"), "balance_usdc"),
        (("job.odd", '{"size": 1, "size": 2}', "--agent", "me"), "twice"),
        (("job.odd", "{}", "--agent", "me", "--id", "17"), "no ULID"),
        (("job.odd", "{}", "--agent", "me", "--id", f"7{'Z' * 25}"), "future"),
        (("market.tick", '{"pair": "BTC-USDC"}', "--agent", "me"), "the market's alone"),
    ],
)
def test_what_nobody_could_read_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], words: str
):
    """A wrong agent, type, payload or id is told by name; nothing is published."""
    monkeypatch.delenv("PF_AGENT_ID", raising=False)
    error = CliRunner().invoke(command, arguments).exception
    assert isinstance(error, SettingsError)
    assert words in str(error)
    assert "\n" not in str(error)
