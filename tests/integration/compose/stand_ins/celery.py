"""Stands in for a worker or a reconciler: lives until it is told to end."""

import signal
import sys

signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
print("the worker stand-in starts", flush=True)  # noqa: T201 - its log
while True:
    signal.pause()
