"""Floor 1: what the fleet tells of itself."""
