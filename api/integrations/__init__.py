"""The register of integrations: request, review, approval, checklists, activation and suspension."""
