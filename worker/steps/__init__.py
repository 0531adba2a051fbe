"""Execution of steps: claims, the call of the agent, outcomes, write-behind, heartbeats."""
