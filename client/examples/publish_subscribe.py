"""Publish and subscribe: two systems that do not know each other each see every run that a third one submits.

A subscriber is a consumer of the change feed. Bucket keeps its cursor: one that was down goes on where it stopped.
"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor

from bucket_client import Bucket

RUNS = 5


def subscribe(name: str, topic: str) -> list[float]:
    """Take the totals of all runs with the tag ``topic``, one after the other."""
    totals: dict[str, float] = {}
    with Bucket() as bucket:
        for run in bucket.changes(name, tag=topic, only_done=True):
            totals[run.execution_id] = run.result["analysis"]["total"]  # a change may come twice: this does no harm
            if len(totals) == RUNS:
                break
        bucket.delete_consumer(name)
    return sorted(totals.values())


def main() -> None:
    """Start two subscribers, publish five runs, and print what each of the two has seen."""
    topic = sys.argv[1] if len(sys.argv) > 1 else "totals"
    names = [f"billing-{topic}", f"audit-{topic}"]
    with Bucket() as bucket, ThreadPoolExecutor(2) as pool:
        for name in names:
            next(bucket.changes(name, tag=topic, follow=False), None)  # creates it: it begins now
        subscribers = [pool.submit(subscribe, name, topic) for name in names]
        for number in range(RUNS):
            bucket.run("working_test", {"transactions": [{"id": number, "amount": 10 * number}]}, tags=[topic])
        for name, subscriber in zip(names, subscribers, strict=True):
            print(name, subscriber.result())


if __name__ == "__main__":
    main()
