"""Agent that tells which services of a vehicle are due."""
