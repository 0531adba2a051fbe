"""The simulator: an agent that plays a script, so that integrators can test how they poll."""
