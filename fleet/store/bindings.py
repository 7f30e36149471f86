"""The patterns that `topology apply` bound for a service."""

from __future__ import annotations

from collections.abc import Iterable

from fleet.store.api import Tx


def record(tx: Tx, service: str, patterns: Iterable[str], now_ms: int) -> None:
    """Remember exactly these patterns for the service."""
    tx.execute("DELETE FROM bindings WHERE service = ?", (service,))
    # The empty pattern tells "applied, nothing bound" from "never applied".
    tx.bulk(
        ("service", "pattern", "at_ms"),
        [(service, pattern, now_ms) for pattern in sorted({"", *patterns})],
        "INSERT INTO bindings (service, pattern, at_ms) SELECT service, pattern, at_ms FROM rows",
    )


def of(tx: Tx, service: str) -> frozenset[str] | None:
    """The patterns recorded for the service; None where the topology was never applied."""
    rows = tx.query("SELECT pattern FROM bindings WHERE service = ?", (service,))
    return frozenset(pattern for (pattern,) in rows if pattern) if rows else None
