"""``bucketd up`` as a process, with the whole stack."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from compose.embedded.bucket_process_plans import fetch_json
from compose.embedded.directory_lock import read_holder_of
from tests.waiting import wait_until


@contextmanager
def bucketd_up(
    directory: Path, out: IO[bytes] | None = None, options: Sequence[str] = (), **environ: str
) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """Run `bucketd up` in ``directory`` until the block ends, then stop it; yield its process and its URL."""
    data, said = directory / "data", directory / "said"
    with said.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-c", "from compose.cli import main; main()", "up", "--data", str(data), *options],
            stdout=out or file,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PORT": "0", "BUCKET_WORKER_CONCURRENCY": "2", **environ},
        )
    try:
        has_started = (lambda: "Bucket is up" in said.read_text()) if out is None else (lambda: has_self_test_run(data))
        wait_until(lambda: has_started() or process.poll() is not None, 40, "the stack is up")
        assert process.poll() is None, said.read_text()
        yield process, str(read_holder_of(data)["url"])
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)


def has_self_test_run(data: Path) -> bool:
    """Return whether a self-test has ended; for a first start whose output cannot be read."""
    try:
        runs = fetch_json(f"{read_holder_of(data)['url']}/executions?tag=self-test")["executions"]
    except (OSError, LookupError, ValueError):
        return False
    return any(run["status"] == "completed" for run in runs)
