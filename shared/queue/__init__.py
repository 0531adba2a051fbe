"""Hands steps out: doorbell messages of ids only, which may be lost or doubled without harm."""
