"""Runs Bucket's whole stack on one machine, for development and tests; never for production."""
