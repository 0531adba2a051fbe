"""The reconciler's stop signals, in a process of its own."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import os, signal, time
from worker.reconciler import stop_on_signal

stop = stop_on_signal()
with stop._cond:  # as within stop.wait()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(0.2)
assert stop.wait(10)
"""


def test_a_signal_stops_it_also_while_it_begins_to_wait() -> None:
    ended = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=30, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
