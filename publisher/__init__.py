"""Floor 2: the bridge, from sources onto the exchange."""
