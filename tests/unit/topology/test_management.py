"""Where the management API is."""

from __future__ import annotations

import pytest

from fleet.core.errors import BrokerError
from topology.management import management_url


@pytest.mark.parametrize(
    ("amqp", "given", "url"),
    [
        ("amqp://u:p@h", None, "http://u:p@h:15672"),
        ("amqp://u:p@h:5672/v", None, "http://u:p@h:15672"),
        ("amqps://u:p@h/", None, "https://u:p@h:15671"),
        ("amqp://u:p@h:5673/", None, None),
        ("amqp://u:p@h:5673/", "http://m:1", "http://u:p@m:1"),
        ("amqp://u:p@h:5673/", "https://a:b@m/rabbit", "https://a:b@m/rabbit"),
        ("amqp://h", None, "http://guest:guest@h:15672"),
    ],
)
def test_it_is_beside_the_usual_port_or_where_the_operator_says(
    amqp: str, given: str | None, url: str | None
):
    """Beside an unusual AMQP port nothing is guessed; the AMQP user is the default."""
    found = management_url(amqp, given)
    assert (found and found.rstrip("/")) == url


@pytest.mark.parametrize("given", ["nonsense", "amqp://h", "http://", "http://h:99999", "http://["])
def test_an_address_that_is_none_is_one_sentence(given: str):
    """A wrong MANAGEMENT_URL is named, not guessed around."""
    with pytest.raises(BrokerError, match="MANAGEMENT_URL is no address"):
        management_url("amqp://h", given)
