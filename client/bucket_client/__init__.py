"""Client of Bucket: submits runs and polls until they are done; it never receives a call from the server.

The shortest program::

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
from bucket_client.execution import CurrentStep, Execution, ExecutionError, LogLine, Progress, StepView, WaitingFor
from bucket_client.mapping import MapProgress, MapResult
from bucket_client.submits import SubmitOptions

__all__ = [
    "AsyncBucket",
    "Bucket",
    "BucketError",
    "BucketWarning",
    "Conflict",
    "CurrentStep",
    "Execution",
    "ExecutionCancelled",
    "ExecutionError",
    "ExecutionFailed",
    "Forbidden",
    "Invalid",
    "LogLine",
    "MapProgress",
    "MapResult",
    "NotFound",
    "Overloaded",
    "Progress",
    "RateLimited",
    "ServerFault",
    "StateFileError",
    "StepView",
    "SubmitOptions",
    "Timeout",
    "Unavailable",
    "WaitingFor",
]
