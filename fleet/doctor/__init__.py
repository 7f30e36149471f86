"""Is the fleet able to work, and what is to be done where it is not."""
