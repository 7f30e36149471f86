"""Floor 3: what is true of the fleet as a whole, for Prometheus."""
