"""Floor 1: the broker's layout as frozen values."""
