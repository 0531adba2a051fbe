"""Knows the agents and the baskets that ship with Bucket, from their JSON alone; never imports an agent."""
