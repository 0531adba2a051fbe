"""Long random chaos tests: ``python -m tests.faults.chaos``; every random choice can be repeated from the seed."""
