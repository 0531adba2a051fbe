"""Hints for pollers: when to poll again, and what a run waits for; learnt from past durations."""
