"""Log lines of all executions over HTTP."""
