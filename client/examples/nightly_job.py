"""A nightly job: each line of a CSV is the input of a run, each result a line of another CSV.

    python nightly_job.py accounts.csv report-2026-12-01.csv

It may be killed at any point. The same command then goes on: no run is made twice, no line is missing or doubled. A new
night is a new report, so put the date into its name. The first CSV has the columns ``account`` and ``amounts`` (numbers
with spaces between them). The report is in the order in which the runs end; ``line`` is that of the first CSV.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bucket_client import Bucket, BucketError, MapResult

COLUMNS = ["line", "account", "status", "total", "error", "run"]
FIRST_LINE = 2  # the names of the columns are line 1


def read_inputs(path: Path) -> Iterator[dict[str, Any]]:
    """Map each line of our own data to the input of the basket; what the basket does not know is passed through."""
    with path.open(newline="", encoding="utf-8") as lines:
        for line in csv.DictReader(lines):
            amounts = enumerate(map(float, line["amounts"].split()))
            yield {"account": line["account"], "transactions": [{"id": n, "amount": amount} for n, amount in amounts]}


def to_row(result: MapResult) -> dict[str, Any]:
    """Map a result back to our own columns; a failed run and a refused input are lines too."""
    row = {"line": result.index + FIRST_LINE, "account": result.input["account"]}
    run = result.execution
    if run is None:
        return row | {"status": "refused", "error": result.error}
    if not run.is_completed:
        return row | {"status": run.status, "error": (run.error or {}).get("message"), "run": run.execution_id}
    return row | {"status": run.status, "total": run.result["analysis"]["total"], "run": run.execution_id}


def read_report(path: Path) -> list[dict[str, str]]:
    """Return the lines that the report has."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as lines:
        return list(csv.DictReader(lines))


def main() -> None:
    """Run all inputs that have no line in the report yet. The exit code is 1 if a run did not complete."""
    source, report = Path(sys.argv[1]), Path(sys.argv[2])
    state = report.with_name(f"{report.name}.state")
    if state.exists() and not report.exists():
        sys.exit(f"{state} says what was done, but {report} is gone: remove {state} to run everything again")
    written = {row["line"] for row in read_report(report)}
    with report.open("a", newline="", encoding="utf-8") as lines, Bucket() as bucket:
        writer = csv.DictWriter(lines, COLUMNS)
        if not lines.tell():
            writer.writeheader()
        try:
            for result in bucket.map("working_test", read_inputs(source), state=state):
                row = to_row(result)
                if str(row["line"]) not in written:  # after a kill the last result may come once more
                    writer.writerow(row)
                    lines.flush()  # it must be in the file before the next one is asked for
        except BucketError as error:  # start the same command again when Bucket is back
            sys.exit(f"not finished: {error}")
    failed = [row for row in read_report(report) if row["status"] != "completed"]
    print(f"done: {report}, {len(failed)} not completed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
