"""A nightly job: each line of a CSV is the input of a run, each result a line of another CSV.

    python nightly_job.py accounts.csv report.csv

It may be killed at any point. The same command then goes on: no run is made twice, no line is missing or doubled. The
first CSV has the columns ``account`` and ``amounts`` (numbers with spaces between them).
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bucket_client import Bucket, MapResult

COLUMNS = ["account", "status", "total", "error"]


def read_inputs(path: Path) -> Iterator[dict[str, Any]]:
    """Map each line of our own data to the input of the basket; what the basket does not know is passed through."""
    with path.open(newline="", encoding="utf-8") as lines:
        for line in csv.DictReader(lines):
            amounts = enumerate(map(float, line["amounts"].split()))
            yield {"account": line["account"], "transactions": [{"id": n, "amount": amount} for n, amount in amounts]}


def to_row(result: MapResult) -> dict[str, Any]:
    """Map a result back to our own columns; a failed run and a refused input are lines too."""
    account = result.input["account"]
    run = result.execution
    if run is None:
        return {"account": account, "status": "refused", "error": result.error}
    if not run.is_completed:
        return {"account": account, "status": run.status, "error": (run.error or {}).get("message")}
    return {"account": account, "status": run.status, "total": run.result["analysis"]["total"]}


def main() -> None:
    """Run all inputs that have no line in the report yet."""
    source, report = Path(sys.argv[1]), Path(sys.argv[2])
    is_new = not report.exists() or not report.read_bytes()
    written = set()
    if not is_new:
        with report.open(newline="", encoding="utf-8") as lines:
            written = {line["account"] for line in csv.DictReader(lines)}
    with report.open("a", newline="", encoding="utf-8") as lines, Bucket() as bucket:
        writer = csv.DictWriter(lines, COLUMNS)
        if is_new:
            writer.writeheader()
        for result in bucket.map("working_test", read_inputs(source), state=f"{report}.state"):
            if result.input["account"] not in written:  # after a kill the last result may come once more
                writer.writerow(to_row(result))
                lines.flush()  # it must be in the file before the next one is asked for
    print("done:", report)


if __name__ == "__main__":
    main()
