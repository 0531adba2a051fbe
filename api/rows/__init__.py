"""Rows of lists and of the change feed, with the fields that a caller selects."""
