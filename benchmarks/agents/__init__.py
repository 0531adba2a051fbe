"""Agents that only the benchmarks run."""
