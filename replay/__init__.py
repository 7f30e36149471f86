"""Floor 3: what a person does with what failed: look, plan, replay, edit, archive, restore."""
