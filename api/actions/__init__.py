"""What callers ask of runs that exist: cancel, retry, and requeue of dead letters."""
