"""Agent that reads the structure of a free text."""
