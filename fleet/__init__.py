"""Flea Fleet: a RabbitMQ work-queue fleet for trading agents."""
