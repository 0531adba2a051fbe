"""Measures Bucket beside the plain application that it is compared with; no test, and nothing that Bucket needs."""
