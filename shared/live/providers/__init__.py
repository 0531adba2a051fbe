"""Providers, the services that agents call: circuit breaker, rate limit, retry budget, last good answers, metrics."""
