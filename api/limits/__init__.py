"""Limits of authenticated callers: token buckets for each key and class of route, and quotas of each integrator."""
