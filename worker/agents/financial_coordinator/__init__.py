"""Sample agent that keeps a ledger of transactions."""
