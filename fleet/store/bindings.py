"""What `topology apply` bound for a service: its patterns, and how many lanes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from fleet.store.api import Tx


def record(
    tx: Tx, service: str, patterns: Iterable[str], now_ms: int, *, partitions: int | None = None
) -> None:
    """Remember exactly these patterns for the service, and how many lanes it has, if any.

    What was remembered already keeps its time: since then the service is fed with it.
    """
    rows = tx.query("SELECT pattern, at_ms FROM bindings WHERE service = ?", (service,))
    since = {pattern: int(at_ms) for pattern, at_ms in rows}
    tx.execute("DELETE FROM bindings WHERE service = ?", (service,))
    # The empty pattern tells "applied, nothing bound" from "never applied".
    noted = {"", *patterns, *([f"{_LANES}{partitions}"] if partitions else [])}
    tx.bulk(
        ("service", "pattern", "at_ms"),
        [(service, pattern, since.get(pattern, now_ms)) for pattern in sorted(noted)],
        "INSERT INTO bindings (service, pattern, at_ms) SELECT service, pattern, at_ms FROM rows",
    )


def of(tx: Tx, service: str) -> frozenset[str] | None:
    """The patterns recorded for the service; None where the topology was never applied."""
    rows = tx.query("SELECT pattern FROM bindings WHERE service = ?", (service,))
    patterns = (pattern for (pattern,) in rows if pattern and not pattern.startswith(_LANES))
    return frozenset(patterns) if rows else None


def fed(tx: Tx) -> dict[str, dict[str, int]]:
    """Of each service whose topology was applied: its patterns, and since when (ms) they hold."""
    found: dict[str, dict[str, int]] = {}
    for service, pattern, at_ms in tx.query("SELECT service, pattern, at_ms FROM bindings"):
        patterns = found.setdefault(service, {})
        if pattern and not pattern.startswith(_LANES):
            patterns[pattern] = int(at_ms)
    return found


def services(tx: Tx) -> list[str]:
    """Every service whose topology was applied."""
    rows = tx.query("SELECT DISTINCT service FROM bindings ORDER BY service")
    return [service for (service,) in rows]


def partitions(tx: Tx, service: str) -> int | None:
    """The number of lanes recorded for the service; None where it has none, or none are known."""
    return lane_counts(tx).get(service)


def lane_counts(tx: Tx) -> dict[str, int]:
    """The number of lanes of each service for which one is recorded."""
    rows = tx.query("SELECT service, pattern FROM bindings WHERE pattern LIKE ?", (f"{_LANES}%",))
    return {service: int(pattern.removeprefix(_LANES)) for service, pattern in rows}


def wants(tx: Tx, event_type: str) -> bool:
    """Whether any service is fed with events of this type."""
    domain = event_type.partition(".")[0]
    patterns = (event_type, f"{domain}.*", f"{domain}.#", "*", "#", "*.*")
    marks = ", ".join("?" * len(patterns))
    return bool(tx.query(f"SELECT 1 FROM bindings WHERE pattern IN ({marks}) LIMIT 1", patterns))


_LANES: Final = "/"  # no pattern begins so: a row "/16" is the number of lanes
