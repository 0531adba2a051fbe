"""Agent that finds the trend of scores in time."""
