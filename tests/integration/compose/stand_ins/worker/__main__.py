"""Stand-in for a worker: runs until it gets a signal to stop."""

import signal
import sys


def end(*_: object) -> None:
    print("the worker stand-in ends", flush=True)  # noqa: T201 - its log
    sys.exit(0)


signal.signal(signal.SIGTERM, end)
print("the worker stand-in starts", flush=True)  # noqa: T201 - its log
while True:
    signal.pause()
