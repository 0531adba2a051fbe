"""Plays a script, so that integrators can test how they poll."""
