"""Poll interval hints: when to poll a run again, and what it waits for; learned from past durations."""
