"""Acceptance tests: what callers see of the real stack. A package, so that its shared stacks end with its last test."""
