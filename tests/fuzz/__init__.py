"""Cases that schemathesis makes of the contract, by the thousand, against a real stack with real runs in it."""
