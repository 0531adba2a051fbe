"""Carries out bulk actions: the engine's own agent, which works on the stores and never on a client's request."""
