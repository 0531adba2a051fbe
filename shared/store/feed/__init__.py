"""The change feed in MongoDB: its writer (a change stream cut into numbered batches), its reader, named consumers."""
