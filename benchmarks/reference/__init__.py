"""The reference application: plain Flask + Celery + MongoDB, as in a tutorial, with which Bucket is compared.

Its settings are good ones: one MongoClient per process, no result backend, the input in the message, so that the worker
reads nothing. It has no schemas, leases, checkpoints or views: a worker that dies loses its run.
"""
