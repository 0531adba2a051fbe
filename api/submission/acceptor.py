"""Idempotent accept: stores a new run, or finds the run that already holds the submission's idempotency key.

An accepted run stays accepted even if its basket, Redis or the backlog has changed since. So, before a refusal is
raised, the holder of the key is looked up. If nothing is refused, the insert itself finds the holder: a new key costs
no read.
"""

from __future__ import annotations

from dataclasses import dataclass

from api.limits.quotas import release_quota
from api.submission.group_commit import GroupCommit
from api.submission.run_builder import NewRun
from api.submission.submission import Submission
from api.submission.withdrawals import Withdrawals
from shared.bootstrap import Services
from shared.domain.execution import Execution, Idempotency
from shared.errors import BucketError, IdempotencyKeyReused, OutcomeUnknown


@dataclass(frozen=True, slots=True)
class AcceptedRun:
    """A run that was accepted now, or by an earlier request with the same idempotency key (``is_replay``)."""

    run: Execution
    is_replay: bool = False


class Acceptor:
    """Creates executions: single submits, retries and requeues of dead letters all go through :meth:`accept`."""

    def __init__(self, services: Services, group_commit: GroupCommit, withdrawals: Withdrawals) -> None:
        self._store = services.store
        self._group_commit = group_commit
        self._withdrawals = withdrawals

    def accept(self, submission: Submission, new: NewRun | BucketError) -> AcceptedRun:
        """Return the run that holds this submission's key, or store and offer the ``new`` one.

        Raises ``new`` if it is an error and no run holds the key; IdempotencyKeyReused; and Unavailable,
        OutcomeUnknown or NotStorable as the store does.
        """
        try:
            return self._accept(submission, new)
        finally:
            release_quota()

    def _accept(self, submission: Submission, new: NewRun | BucketError) -> AcceptedRun:
        idempotency = submission.idempotency
        # Outputs are stored before the insert that would find the holder: for a replay that would be wasted.
        if idempotency is not None and (isinstance(new, BucketError) or new.outputs):
            holder = self._store.find_by_idempotency_key(submission.integrator, idempotency.key)
            if holder is not None:
                return replay_of(holder, idempotency)
        if isinstance(new, BucketError):
            raise new
        run = new.decision.execution
        try:
            stored = self._group_commit.store(new.decision, new.outputs)
        except OutcomeUnknown:
            if run.idempotency is None:
                self._withdrawals.add(run)
            raise
        return AcceptedRun(stored) if stored.id == run.id else replay_of(stored, run.idempotency)


def replay_of(holder: Execution, idempotency: Idempotency | None) -> AcceptedRun:
    """Return the run that holds a key; raises IdempotencyKeyReused if it was submitted with another body."""
    if holder.idempotency and idempotency and holder.idempotency.fingerprint != idempotency.fingerprint:
        raise IdempotencyKeyReused(
            f"this Idempotency-Key was used with another body, by execution {holder.id}; "
            "take a new key for a new request",
            used_by=holder.id,
        )
    return AcceptedRun(holder, is_replay=True)
