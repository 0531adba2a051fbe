"""Client of Bucket: submits runs and polls until they are done; it never receives a call from the server.

from bucket_client import Bucket

with Bucket() as bucket:
print(bucket.run_and_wait("finance_daily_check").result)
"""

from bucket_client.client import AsyncBucket, Bucket
from bucket_client.errors import (
    BucketError,
    BucketWarning,
    Conflict,
    ExecutionCancelled,
    ExecutionFailed,
    Forbidden,
    Invalid,
    NotFound,
    Overloaded,
    RateLimited,
    ServerFault,
    StateFileError,
    Timeout,
    Unavailable,
)
from bucket_client.execution import Execution, LogLine
from bucket_client.mapping import MapProgress, MapResult

__all__ = [
    "AsyncBucket",
    "Bucket",
    "BucketError",
    "BucketWarning",
    "Conflict",
    "Execution",
    "ExecutionCancelled",
    "ExecutionFailed",
    "Forbidden",
    "Invalid",
    "LogLine",
    "MapProgress",
    "MapResult",
    "NotFound",
    "Overloaded",
    "RateLimited",
    "ServerFault",
    "StateFileError",
    "Timeout",
    "Unavailable",
]
