"""Agent that orders tasks by their needs and finds the critical path."""
