"""Signals by pub/sub: wake-ups of held polls, and hints that a run was cancelled."""
