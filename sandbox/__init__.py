"""A stand-in Purple Flea for demos and tests; knows nothing of the fleet but the wire format."""
