"""Floor 0: pure values and rules. No asyncio, clock, random source or environment."""
