"""The start of an integration: reads own data, runs a basket for each record, hands the results on.

Copy this folder, then change ``records``, ``to_input`` and ``hand_on``. ``bucket check-integration integration.toml
--one-at-a-time`` says whether it still keeps to the checklist.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bucket_client import Bucket, BucketError, MapResult

BASKET = "working_test"
STATE = Path("integration.state")


def records() -> Iterator[dict[str, Any]]:
    """Yield own records: replace this by a query, a file, or a queue."""
    yield {"customer": "C-1", "bookings": [1000, -400]}
    yield {"customer": "C-2", "bookings": [250]}


def to_input(record: dict[str, Any]) -> dict[str, Any]:
    """Map an own record to the input of the basket, as mapping.md says."""
    return {"transactions": [{"id": number, "amount": amount} for number, amount in enumerate(record["bookings"])]}


def hand_on(result: MapResult) -> bool:
    """Hand a result to the own system; return whether the run completed. A failed run is data too: say why."""
    run = result.execution
    if run is None:
        print(f"record {result.index} was refused: {result.error}", file=sys.stderr)
        return False
    if not run.is_completed:
        print(f"record {result.index}, run {run.execution_id}: {run.error}", file=sys.stderr)
        return False
    print(run.execution_id, run.result["analysis"]["total"])
    return True


def main() -> int:
    """Run all records and return the exit code.

    The state file lets the same command go on after a kill; once all is done it is removed, and the next start begins
    anew.
    """
    try:
        with Bucket() as bucket:  # BUCKET_URL and BUCKET_API_KEY
            results = bucket.map(BASKET, map(to_input, records()), state=STATE)
            outcomes = [hand_on(result) for result in results]
    except BucketError as error:
        print(error, file=sys.stderr)
        return 3
    STATE.unlink()
    return 0 if all(outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
