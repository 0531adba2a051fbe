"""Agent that explains error codes and symptoms of a vehicle."""
