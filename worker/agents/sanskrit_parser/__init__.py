"""Agent that transliterates and scans Sanskrit text."""
