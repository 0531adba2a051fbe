"""Tokens of an outside issuer: its keys, the claims, and the caller that they name."""
