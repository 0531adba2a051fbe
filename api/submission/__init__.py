"""Submits: admission control, validation, idempotency keys, group commit, batches and held submits."""
