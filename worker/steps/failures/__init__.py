"""The tracebacks of failed attempts, for the authors of agents."""
