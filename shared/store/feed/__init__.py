"""The change feed in MongoDB: a change stream cut into numbered batches, its reader, and named consumers."""
