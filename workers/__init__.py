"""Floor 2: the runtime that takes deliveries through handlers to settlements."""
