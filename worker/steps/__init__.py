"""The execution of steps: claims, the agent's call, outcomes, write-behind, heartbeats."""
