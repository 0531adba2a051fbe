"""What says who may do what: API keys, the audit log, the register of integrations."""
