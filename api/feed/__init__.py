"""The change feed (change data capture) over HTTP, and its named consumers (durable subscriptions)."""
