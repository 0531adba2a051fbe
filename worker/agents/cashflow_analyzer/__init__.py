"""Sample agent that sums transactions."""
