"""Floor 3: how the fleet does now, gathered from the broker and the store; costs next to nothing.

No message is looked at: up to RabbitMQ 4.2 a look counts as a delivery.
"""
