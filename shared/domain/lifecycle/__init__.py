"""How a run moves: pure transitions from an event to a decision, their timings and log events."""
