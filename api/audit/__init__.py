"""Audit: stores who did what before the answer leaves, and lists it; it decides nothing about a request."""
