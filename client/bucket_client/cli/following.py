"""Following runs to their end: with bars on a terminal; Ctrl-C and a timeout leave them going."""

from __future__ import annotations

import math
import queue
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Final

from bucket_client.cli.error_report import Interrupted
from bucket_client.cli.run_texts import end_text
from bucket_client.cli.session import Session
from bucket_client.client import Bucket
from bucket_client.errors import (
    BucketError,
    ExecutionFailed,
    Overloaded,
    RateLimited,
    ServerFault,
    Timeout,
    Unavailable,
)
from bucket_client.execution import Execution
from bucket_client.waits import OnProgress

_FIRST_POLL_S: Final = 5.0
_FIRST_POLL_MIN_S: Final = 0.5


@dataclass(slots=True)
class Submission:
    """A submit and the runs that became of it: none until Bucket has accepted it."""

    key: str
    execution_ids: list[str] = field(default_factory=list)


@contextmanager
def explained(session: Session, submission: Submission) -> Iterator[Submission]:
    """Add what goes on, and how to come back, if the block ends by Ctrl-C, a timeout, or a server that is away."""
    try:
        yield submission
    except KeyboardInterrupt:
        raise Interrupted(f"{_what_goes_on(submission)}; {_way_back(session, submission)}") from None
    except (Timeout, Unavailable, ServerFault) as error:
        if not submission.execution_ids:
            error.add_note("nothing was submitted" if _was_refused(error) else _what_goes_on(submission))
        error.add_note(_way_back(session, submission))
        raise


def _was_refused(error: BucketError) -> bool:
    """Return whether the submit was sent once and refused; of several, one without a reply may have been stored."""
    return isinstance(error, Overloaded | RateLimited) and error.attempts == 1


def _what_goes_on(submission: Submission) -> str:
    match submission.execution_ids:
        case []:
            return "it is not known whether the run was submitted"
        case [execution_id]:
            return f"{execution_id} goes on"
    return "the runs go on"


def _way_back(session: Session, submission: Submission) -> str:
    if not submission.execution_ids:
        return f"to repeat it safely: {session.line_again(submission.key)}"
    return f"to come back: {session.line_of('watch', *submission.execution_ids)}"


def follow(session: Session, bucket: Bucket, execution_id: str, timeout: float | None) -> Execution:
    """Wait until a run is done and return it, however it ended; on a terminal a bar shows how far it is."""
    if not session.output.draws_progress:
        return bucket.wait(execution_id, timeout=timeout, check=False)
    from bucket_client.cli.progress_bars import run_bars  # here, because rich takes a tenth of a second

    with run_bars(session.output, with_ids=False) as bars:
        bars.add(execution_id)
        return _wait_visibly(session, bucket, execution_id, bars.show, timeout)


def _wait_visibly(
    session: Session, bucket: Bucket, execution_id: str, show: OnProgress, timeout: float | None
) -> Execution:
    """Wait until a run is done. It is polled once before: a held poll says nothing of a run that waits in the queue."""
    due_by = math.inf if timeout is None else time.monotonic() + timeout
    limit_s = _FIRST_POLL_S if timeout is None else min(max(timeout, _FIRST_POLL_MIN_S), _FIRST_POLL_S)
    with suppress(BucketError), session.open_bucket(retries=0, timeout_s=limit_s) as once:
        seen = once.poll(execution_id)  # if this fails, the wait tries again and says why
        show(seen)
        if seen.done:
            return seen
    left = None if timeout is None else max(0.0, due_by - time.monotonic())
    return bucket.wait(execution_id, show, timeout=left, check=False)


def finish(session: Session, execution: Execution, *, on_one_line: bool = False) -> None:
    """Print the result of a run that is done. Raises ExecutionFailed or ExecutionCancelled if it ended so."""
    output = session.output
    if output.as_json and on_one_line:
        output.json_line(execution.raw)
    elif output.as_json:
        output.json(execution.raw)
    elif execution.is_completed:
        output.note(f"{execution.execution_id} {end_text(execution)}")
        output.json(execution.result)
    try:
        execution.raise_for_status()
    except ExecutionFailed as error:
        error.add_note(f"to run it again: {session.line_of('retry', execution.execution_id)}")
        raise


def follow_each(
    session: Session, bucket: Bucket, execution_ids: Sequence[str], timeout: float | None
) -> list[Execution]:
    """Wait until all of these runs are done, with a bar for each, and return them in the order of their ids.

    A thread holds a poll for each run. They are daemons, so that Ctrl-C does not wait for their polls.
    """
    from bucket_client.cli.progress_bars import run_bars  # here, because rich takes a tenth of a second

    events: queue.SimpleQueue[Execution | BaseException] = queue.SimpleQueue()

    def wait(execution_id: str) -> None:
        try:
            _wait_visibly(session, bucket, execution_id, events.put, timeout)
        except BaseException as error:  # noqa: BLE001 -- the main thread raises it
            events.put(error)

    done: dict[str, Execution] = {}
    with run_bars(session.output, with_ids=True) as bars:
        for execution_id in execution_ids:
            bars.add(execution_id)
            threading.Thread(target=wait, args=[execution_id], daemon=True).start()
        while len(done) < len(execution_ids):
            event = events.get()
            if isinstance(event, BaseException):
                raise event
            bars.show(event)
            if event.done:
                done[event.execution_id] = event
    return [done[execution_id] for execution_id in execution_ids]
