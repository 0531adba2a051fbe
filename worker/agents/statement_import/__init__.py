"""Reads account statements of banks: CSV, OFX, MT940, CAMT.053 and JSON."""
