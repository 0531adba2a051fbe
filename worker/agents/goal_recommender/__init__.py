"""Sample agent that recommends from an analysis of cash flow."""
