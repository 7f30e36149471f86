"""Floor 4: the whole fleet at work on one machine, and the proof of what it did."""
