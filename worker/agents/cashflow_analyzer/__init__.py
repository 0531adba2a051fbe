"""Sums transactions."""
