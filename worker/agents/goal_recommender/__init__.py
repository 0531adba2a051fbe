"""Recommends from an analysis."""
