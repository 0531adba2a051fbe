"""How runs are accepted: admission, validation, idempotency, group commit."""
