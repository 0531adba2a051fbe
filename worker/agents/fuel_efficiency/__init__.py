"""Agent that computes fuel consumption from fill-ups."""
