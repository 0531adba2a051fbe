"""Makes the blocking calls of an API process cooperative, when it is imported: gevent's patch of the standard library.

It must be imported before anything that keeps a lock or a socket, so it is the first import of ours in gunicorn's
settings. What the master itself needs of the operating system (fork, signals, child processes) stays as it is.
"""

from __future__ import annotations

from gevent import monkey  # type: ignore[import-untyped]

monkey.patch_all(os=False, signal=False, subprocess=False)
