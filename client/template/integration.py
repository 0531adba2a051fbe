"""The start of an integration: reads own data, runs a basket for each record, hands the results on.

Copy this folder, then change ``records``, ``to_input`` and ``hand_on``. ``bucket check-integration integration.toml
--one-at-a-time`` says whether it still keeps to the checklist.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bucket_client import Bucket, BucketError, MapResult

BASKET = "working_test"
STATE = Path("integration.state")
RESULTS = Path("results.jsonl")


def records() -> Iterator[dict[str, Any]]:
    """Yield own records: replace this by a query, a file, or a queue."""
    yield {"customer": "C-1", "bookings": [1000, -400]}
    yield {"customer": "C-2", "bookings": [250]}


def to_input(record: dict[str, Any]) -> dict[str, Any]:
    """Map an own record to the input of the basket, as mapping.md says."""
    return {"transactions": [{"id": number, "amount": amount} for number, amount in enumerate(record["bookings"])]}


def hand_on(result: MapResult) -> dict[str, Any]:
    """Map a result to an own record. A refused record and a failed run are data too: somebody must see them."""
    run = result.execution
    if run is None:
        return {"record": result.index, "status": "refused", "error": str(result.error)}
    if not run.is_completed:
        return {"record": result.index, "run": run.execution_id, "status": run.status, "error": run.error}
    total = run.result["analysis"]["total"]
    return {"record": result.index, "run": run.execution_id, "status": run.status, "total": total}


def read_results() -> list[dict[str, Any]]:
    """Return the results that are written."""
    return [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.exists() else []


def main() -> int:
    """Run all records and return the exit code: 0 if all completed, 1 if not, 3 if Bucket cannot be used.

    The state file lets the same command go on after a kill; once all is done it is removed, and the next start begins
    anew. After a kill the last result may come again, and is skipped.
    """
    if not STATE.exists():
        RESULTS.unlink(missing_ok=True)
    written = {line["record"] for line in read_results()}
    try:
        with RESULTS.open("a") as lines, Bucket() as bucket:  # BUCKET_URL and BUCKET_API_KEY
            for result in bucket.map(BASKET, map(to_input, records()), state=STATE):
                if result.index not in written:
                    lines.write(json.dumps(hand_on(result)) + "\n")
                    lines.flush()  # it must be in the file before the next result is asked for
    except BucketError as error:
        print(error, file=sys.stderr)
        return 3
    STATE.unlink()
    # Of what is written, and not of what this process has seen: an earlier one may have been killed.
    return 0 if all(line["status"] == "completed" for line in read_results()) else 1


if __name__ == "__main__":
    sys.exit(main())
