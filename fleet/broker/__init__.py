"""Floor 1: a private RabbitMQ for demos, tests and development."""
