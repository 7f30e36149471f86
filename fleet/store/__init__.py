"""Floor 1: what must survive a crash: journal, effects, cursors, leases, lanes, positions."""
