"""Request and response: submit a run, wait for its result, and tell the three ways in which it may not come."""

from __future__ import annotations

import sys

from bucket_client import Bucket, BucketError, ExecutionFailed, Timeout


def main() -> None:
    """Analyse three transactions and print the totals."""
    transactions = [
        {"id": 1, "amount": 1000, "description": "Salary"},
        {"id": 2, "amount": -400, "description": "Rent"},
        {"id": 3, "amount": -50, "description": "Books"},
    ]
    with Bucket() as bucket:
        try:
            run = bucket.run_and_wait("working_test", {"transactions": transactions}, timeout=60)
        except ExecutionFailed as failed:  # it ran and did not succeed: step, error code and log say why
            sys.exit(f"failed: {failed}")
        except Timeout as late:  # it goes on: wait for it again, also tomorrow
            sys.exit(f"not yet done: {late}")
        except BucketError as error:  # refused, or Bucket is not there
            sys.exit(f"not submitted: {error}")
    print(run.execution_id, run.result["analysis"])


if __name__ == "__main__":
    main()
