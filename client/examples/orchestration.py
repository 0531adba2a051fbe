"""Orchestration: follow a long basket, step by step, and find it again after a restart of this program.

The order's number is the idempotency key. The same program, started again with the same order, submits nothing new: it
gets the run that it had made before, and waits for its end.
"""

from __future__ import annotations

import sys

from bucket_client import Bucket, Execution

STAGES = ["running:0.5@25", "running:0.5@50", "running:0.5@75", "running:0.5@100", "completed"]


def show(run: Execution) -> None:
    """Print how far a run is."""
    if run.progress is not None:
        print(f"{run.status} {run.progress['percent']} % {run.progress['message'] or ''}".rstrip(), flush=True)


def main() -> None:
    """Run the order that is named by the first argument, or wait for the run that it has already."""
    order = sys.argv[1] if len(sys.argv) > 1 else "order-17"
    with Bucket() as bucket:
        done = bucket.run_and_wait("simulate", {"script": STAGES}, idempotency_key=order, on_progress=show)
    print(order, done.execution_id, done.status)


if __name__ == "__main__":
    main()
