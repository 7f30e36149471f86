"""Floor 1: a private RabbitMQ for demos, tests and development."""

from fleet.broker.choose import provide
from fleet.broker.management import Management
from fleet.broker.running import RunningBroker
from fleet.broker.settings import BrokerSettings

__all__ = ["BrokerSettings", "Management", "RunningBroker", "provide"]
