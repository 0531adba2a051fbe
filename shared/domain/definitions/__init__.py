"""Definitions that a run uses: baskets, agent specs, retry policies, and how a step gets its input."""
