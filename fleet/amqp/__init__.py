"""Floor 1: AMQP. The only importer of aio_pika and aiormq."""
