"""Polls and lists of executions: one, many, or a page of a list; never submits."""
