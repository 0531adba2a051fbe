"""Agent that finds scores far from the others of their series."""
