"""Ways in: each yields raw frames and keeps its own connection alive."""
