"""What the agent does besides trading: its wallet, its escrows, the agents it hires and pays."""
