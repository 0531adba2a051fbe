"""How executions stand: one, many, or a list of them; never how they were submitted."""
