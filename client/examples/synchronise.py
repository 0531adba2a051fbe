"""Data synchronisation: a local table of all runs, kept up to date by the feed, also after days without this program.

A page of changes is acknowledged when the loop asks for what follows it, so commit before. What was not acknowledged
comes again, and an upsert that compares revisions makes that harmless.
"""

from __future__ import annotations

import json
import sqlite3
import sys
from contextlib import closing

from bucket_client import Bucket

TABLE = """create table if not exists runs (
    execution_id text primary key, rev integer, status text, basket text, result text, error text)"""
UPSERT = """insert into runs values (?, ?, ?, ?, ?, ?) on conflict (execution_id) do update set
    rev = excluded.rev, status = excluded.status, result = excluded.result, error = excluded.error
    where excluded.rev > runs.rev"""


def main() -> None:
    """Bring the table up to date, and print how many runs it has in each status."""
    path, consumer = sys.argv[1:] or ("runs.db", "synchronise")
    with closing(sqlite3.connect(path)) as database, Bucket() as bucket:
        database.execute(TABLE)
        for run in bucket.changes(consumer, follow=False):
            row = (
                run.execution_id,
                run.rev,
                run.status,
                run.basket_name,
                json.dumps(run.result),
                json.dumps(run.error),
            )
            with database:  # commits
                database.execute(UPSERT, row)
        for status, count in database.execute("select status, count(*) from runs group by status order by status"):
            print(status, count)


if __name__ == "__main__":
    main()
