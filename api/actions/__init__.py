"""Actions on existing runs: cancel, retry, and requeue of dead letters."""
