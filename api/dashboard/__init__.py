"""The dashboard: pages in HTML over the API itself, whose routes it calls in this process; it reads no store."""
