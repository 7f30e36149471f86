"""Settings: what is wrong is one sentence, without its value."""

from __future__ import annotations

import os
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from agent.handlers import service
from agent.settings import AgentSettings, load_settings, trade_on_paper
from fleet.core.errors import SettingsError
from fleet.store import Store
from workers.context import Startup


def test_defaults_are_the_documented_ones() -> None:
    """50 USDC, leverage 3, three positions, 20 ticks, 0.3 %."""
    told = load_settings()
    assert (told.max_trade_usdc, told.leverage, told.max_positions) == (50, 3, 3)
    assert (told.window, told.threshold) == (20, Decimal("0.003"))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PF_API_URL", "ftp://purpleflea.com"),
        ("PAPER", "perhaps"),
        ("CAPITAL_USDC", "0"),
        ("MAX_DRAWDOWN", "NaN"),
        ("PF_ORDER_ENDPOINT", "elsewhere"),
        ("BREAKER_FAILURES", "0"),
        ("PF_API_URL", "https://user:hunter2@purpleflea.com"),
        ("PF_API_URL", "https://[::1"),
        ("PF_API_URL", "nonsense"),
        ("MOMENTUM_WINDOW", "1"),
        ("MOMENTUM_THRESHOLD", "NaN"),
        ("MOMENTUM_THRESHOLD", "0"),
        ("MAX_TRADE_USDC", "-50"),
        ("MAX_TRADE_USDC", "Infinity"),
        ("LEVERAGE", "0.5"),
        ("MAX_POSITIONS", "0"),
        ("TICK_MAX_AGE_S", "nan"),
        ("ORDER_MAX_AGE_S", "soon"),
        ("PF_PARTITIONS", "257"),
    ],
)
def test_a_wrong_setting_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    """It names the setting and never repeats what was in it."""
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as caught:
        load_settings()
    text = str(caught.value)
    assert text.startswith(name)
    assert "\n" not in text
    assert "hunter2" not in text


@pytest.mark.parametrize("key", ["", "sk_live_secret1", "secret1", "pf_live_", "pf_live_a\nb"])
def test_a_key_that_is_none_is_refused_unrepeated(key: str) -> None:
    """An owner's key above all."""
    with pytest.raises(SettingsError) as caught:
        AgentSettings(agent_key=key).key()
    assert "secret1" not in str(caught.value)


def test_a_key_may_stand_in_a_file(tmp_path: Path) -> None:
    """As container secrets do, with a line end; a file that is missing is named as the fault."""
    path = tmp_path / "key"
    path.write_text("pf_live_abc\n")
    assert AgentSettings(agent_key_file=path).key() == "pf_live_abc"
    with pytest.raises(SettingsError, match="PF_AGENT_KEY_FILE"):
        AgentSettings(agent_key_file=tmp_path / "none").key()


def test_the_key_is_not_in_the_repr() -> None:
    """Printing settings tells no secret."""
    assert "pf_live_abc" not in repr(AgentSettings(agent_key="pf_live_abc"))


def test_paper_is_one_word_for_all_that_follows(monkeypatch: pytest.MonkeyPatch) -> None:
    """`--paper` is the setting, for the processes that a worker starts too."""
    monkeypatch.setenv("PAPER", "0")
    assert not load_settings().paper
    trade_on_paper()
    assert load_settings().paper
    assert os.environ["PAPER"] == "1"


def test_the_capital_is_what_can_be_at_stake_unless_it_is_told() -> None:
    """Most money in most positions, or CAPITAL_USDC."""
    assert AgentSettings().capital() == 150
    assert AgentSettings(capital_usdc=Decimal(400)).capital() == 400


async def test_a_service_needs_no_key_until_it_starts(store: Store, post: Any) -> None:
    """The layout is known without one; a worker without one does not start."""
    made = service()
    layout = made.layout()
    assert layout.lanes is not None
    assert "market.tick" not in layout.patterns
    assert {"order.requested", "wallet.low_balance", "market.candle"} <= set(layout.patterns)
    assert made.lifespan is not None
    with pytest.raises(SettingsError, match="PF_AGENT_ID"):
        await made.lifespan(Startup(store, "w", post.publish)).__aenter__()
