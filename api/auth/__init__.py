"""Authentication and permissions: who calls, and whether its role permits the route."""
