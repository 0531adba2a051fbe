"""What a run is made of: baskets, agent specs, retry policies, and how a step gets its input."""
