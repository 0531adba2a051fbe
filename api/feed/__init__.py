"""The change feed over HTTP, and its named consumers."""
