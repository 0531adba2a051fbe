"""``bucketd top``: the queues, the workers and the newest failures in a terminal; it reads, and never writes."""
