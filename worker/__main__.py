"""Runs a worker, and with ``--reconciler`` a reconciler beside it: ``python -m worker``.

It does what ``celery --app worker.app worker`` does, without Celery's command line: that loads all its commands and a
shell, 9 MB that no worker uses.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial

from shared.domain.definitions.agent_spec import QUEUE_NAMES
from shared.errors import BucketError


def main() -> int:
    """Run until SIGTERM or SIGINT; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m worker", description="Run a worker.", allow_abbrev=False)
    parser.add_argument("-Q", "--queues", type=_queues, help=f"of {','.join(QUEUE_NAMES)}; by default all of them")
    parser.add_argument("-n", "--hostname", help="the worker's name in the log, such as payments@%%h")
    parser.add_argument("--reconciler", action="store_true", help="run a reconciler too, as a child of this process")
    options = parser.parse_args()

    from shared.bootstrap import bootstrap
    from worker.app import app, settings
    from worker.reconciler import serve
    from worker.supervision.embedded_reconciler import reconciler_bootstep

    if options.reconciler:
        # Built here, so that the child shares it; its connections are opened after the fork.
        app.steps["worker"].add(reconciler_bootstep(partial(serve, bootstrap(settings, "reconciler"))))
    worker = app.Worker(queues=options.queues, hostname=options.hostname)
    worker.start()
    return int(worker.exitcode or 0)


def _queues(text: str) -> list[str]:
    names = text.split(",")
    if not set(names) <= set(QUEUE_NAMES):
        raise argparse.ArgumentTypeError(f"{text!r} is not of the queues {', '.join(QUEUE_NAMES)}")
    return names


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BucketError as error:
        raise SystemExit(f"the worker cannot start: {error.message}") from error
