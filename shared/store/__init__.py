"""Persistence in MongoDB, the only source of truth: a transition is one filtered update of one document.

It never sends messages and never decides: ``shared.domain`` decides, callers carry decisions out.
"""
