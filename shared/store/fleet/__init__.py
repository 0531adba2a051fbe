"""What operators see of the whole fleet in MongoDB: the backlog, and whether a reconciler leads."""
