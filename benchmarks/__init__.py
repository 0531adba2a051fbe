"""Benchmarks: compare Bucket with a plain Flask + Celery + MongoDB application; no tests, and no part of Bucket."""
