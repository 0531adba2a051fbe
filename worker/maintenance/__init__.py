"""Maintenance in the reconciler besides rescues: retention, the relay of the change feed, grace periods."""
