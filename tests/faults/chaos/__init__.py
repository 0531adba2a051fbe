"""Long random chaos: ``python -m tests.faults.chaos``; it never chooses what it cannot play again from its seed."""
