"""The plain Flask + Celery + MongoDB application, as a tutorial writes it: what Bucket is measured against.

Its settings are good ones: one MongoClient a process, no result backend, the input in the message, so that the worker
reads nothing. It has no schemas, leases, checkpoints or views: a worker that dies loses its run.
"""
