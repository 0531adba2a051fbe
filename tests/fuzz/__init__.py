"""Fuzz tests: schemathesis makes thousands of cases from the contract and sends them to a real stack with real runs."""
