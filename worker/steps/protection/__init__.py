"""Protection of what a run stores: marked fields, and everything if all payloads are sealed."""
