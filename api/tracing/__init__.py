"""Spans of requests, if tracing is on (docs/tracing.md)."""
