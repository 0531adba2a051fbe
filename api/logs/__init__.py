"""The log lines of all executions over HTTP."""
