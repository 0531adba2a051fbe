"""Executions in MongoDB: one filtered update for each transition, queries, bulk writes, retention."""
