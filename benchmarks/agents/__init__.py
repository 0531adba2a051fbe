"""Agents that only the benches run."""
