"""Floor 3: the trading agent that ships with the fleet."""
