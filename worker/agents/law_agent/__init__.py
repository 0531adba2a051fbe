"""Agent that asks a provider of legal information."""
