"""Floor 3: what became of every event, reckoned from log, journal and queues."""
