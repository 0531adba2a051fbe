"""Agent that plans events and tasks into working hours."""
