"""The gateway: the only way out that Bucket offers to an agent."""
