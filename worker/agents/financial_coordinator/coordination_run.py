"""The long run ``coordinate``: account by account it fetches, analyses and reports, and survives what goes wrong.

    restore -> [cancelled? -> fetch and analyse one account -> progress -> checkpoint if due] ... -> review

An account that fails for good is in the report with its reason. One that fails for a reason that may pass is tried
again after all others, and is given up if the provider answers for another account. If the provider itself is away, the
run waits for it, and then fails as transient, so that the next attempt, or a retry of the run, goes on from the
checkpoint. Each account is fetched once; after the loss of a worker those that were fetched since the last checkpoint
are fetched again.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Final

from worker.agent_errors import PermanentError, TransientError
from worker.context import AgentContext

from .account_review import analyse
from .coordination_state import CoordinationState, may_continue
from .provider_client import AnswerUnreadable
from .transaction_reader import ReadingNotes, TransactionReader, clean_text
from .transaction_sources import TransactionSource

CHECKPOINT_EVERY_S: Final = 1.0
CHECKPOINT_EVERY_ACCOUNTS: Final = 20
FAILURES_IN_A_ROW_MAX: Final = 3
PAUSE_FIRST_S: Final = 0.25
PAUSE_MAX_S: Final = 15.0
# What concerns the provider, not one of its accounts.
_AWAY_KINDS: Final = frozenset({"network", "circuit_open", "rate_limited", "rate_limit_local"})
_AWAY_STATUSES: Final = frozenset({429, 502, 503})
_UNUSABLE_KINDS: Final = frozenset({"not_allowed", "certificate", "invalid_request", "cancelled"})
_UNAUTHORISED: Final = 401


class CoordinationCancelled(Exception):
    """The run was asked to stop."""


def check_cancelled(ctx: AgentContext) -> None:
    """Raise CoordinationCancelled if the step should stop."""
    if ctx.cancelled:
        raise CoordinationCancelled("the run was asked to stop")


class CoordinationRun:
    """One attempt of a coordinate run; ``provider_wait_s`` is how long it waits for a provider that is away."""

    def __init__(self, ctx: AgentContext, source: TransactionSource, provider_wait_s: float) -> None:
        self._ctx = ctx
        self._source = source
        self._provider_wait_s = provider_wait_s
        self._waited_s = 0.0
        self._pause_s = PAUSE_FIRST_S
        self._failures_in_a_row = 0
        self._probes = 0
        self._has_just_answered = False
        # Accounts that an earlier attempt fetched and did not store come first: each is stored at once, so that another
        # loss does not bring them a third time.
        self._is_storing_each = ctx.attempt > 1
        self._reviewed = 0
        self._since_checkpoint = 0
        self._checkpoint_at = time.monotonic()

    def review(self, accounts: Sequence[str] | None) -> dict[str, Any]:
        """Return the review of ``accounts``, or of all that the source has.

        Raises PermanentError if no account could be read, TransientError if the provider is away, and
        CoordinationCancelled.
        """
        state = self._restored_state(accounts)
        if state is None:
            state = self._new_state(accounts)
        try:
            while (account := state.next_account) is not None:
                self._check_cancelled()
                self._tell(state, account)
                self._review_account(state, account)
                self._checkpoint_if_due(state)
        except (CoordinationCancelled, TransientError, PermanentError):
            self._ctx.checkpoint(state.to_json())  # for the next attempt, or for a retry of the run
            raise
        self._ctx.progress(1.0, f"{state.done_count} of {len(state.accounts)} accounts")
        if state.accounts and not state.reviewed_count:
            raise PermanentError(f"no account could be reviewed; the first: {state.reports[0]['reason']}")
        return state.review(self._source.name)

    def _new_state(self, accounts: Sequence[str] | None) -> CoordinationState:
        if accounts is not None:
            return CoordinationState(list(accounts))
        self._ctx.progress(0.0, f"looking for the accounts of the {self._source.name}")
        state = CoordinationState(self._source.accounts())
        if state.accounts:
            self._ctx.checkpoint(state.to_json())  # so that a later attempt has the same accounts
        return state

    def _restored_state(self, accounts: Sequence[str] | None) -> CoordinationState | None:
        raw = self._ctx.restore()
        if raw is None or not may_continue(raw, accounts if accounts is None else list(accounts)):
            return None
        state = CoordinationState.from_json(raw)
        self._is_storing_each = True
        if self._ctx.attempt == 1:  # a retry of the run: somebody may have mended what failed
            state.retry_failures()
        self._ctx.log("continues after the last checkpoint", done=state.done_count, accounts=len(state.accounts))
        return state

    def _review_account(self, state: CoordinationState, account: str) -> None:
        if state.is_second_round and not self._answers_for_another(state):
            return
        notes = ReadingNotes()
        try:
            transactions = TransactionReader(notes, account).read(self._source.transactions(account))
            state.add_findings(analyse(account, transactions, notes))
        except (PermanentError, TransientError, ConnectionError, TimeoutError) as error:
            self._check_cancelled()
            self._has_just_answered = False
            if _is_unusable(error):
                raise
            if _is_away(error):
                self._wait_for_provider(error)
                return
            if _may_pass(error) and self._defer(state, account, error):
                return
            self._fail(state, account, error)
            return
        self._on_answer()

    def _defer(self, state: CoordinationState, account: str, error: Exception) -> bool:
        """Put an account off until all others are done; return False if it has had its second try."""
        if not state.is_second_round:
            state.defer(account)
            self._failures_in_a_row += 1
            if self._failures_in_a_row >= FAILURES_IN_A_ROW_MAX:
                self._wait_for_provider(error)
            return True
        if isinstance(error, PermanentError) or state.reviewed_count:
            return False
        self._wait_for_provider(error)  # nothing shows that the provider works
        return True

    def _answers_for_another(self, state: CoordinationState) -> bool:
        """Return whether the provider answers for an account that was reviewed; if it does not, wait.

        Only then it is the account's own fault if it fails again. Another one is asked each time.
        """
        reviewed = state.reviewed_accounts
        if self._has_just_answered or not reviewed:
            return True
        try:
            next(iter(self._source.transactions(reviewed[-1 - self._probes % len(reviewed)])), None)
        except (PermanentError, TransientError, ConnectionError, TimeoutError) as error:
            self._check_cancelled()
            self._wait_for_provider(error)
            return False
        self._probes += 1
        self._on_answer()
        return True

    def _fail(self, state: CoordinationState, account: str, error: Exception) -> None:
        reason = clean_text(str(error))
        self._ctx.log(f"account {account or '(none)'} is left out: {reason}", level="warning")
        state.add_failure(account, reason)

    def _on_answer(self) -> None:
        self._has_just_answered = True
        self._failures_in_a_row, self._waited_s, self._pause_s = 0, 0.0, PAUSE_FIRST_S

    def _wait_for_provider(self, error: Exception) -> None:
        pause_s = min(max(self._pause_s, getattr(error, "retry_after_s", None) or 0.0), PAUSE_MAX_S)
        if self._waited_s + pause_s > self._provider_wait_s:
            raise TransientError(f"the provider is away, and was waited for: {clean_text(str(error))}") from error
        self._ctx.log("the provider is away: waiting", level="warning", seconds=pause_s, reason=str(error))
        self._waited_s += pause_s
        self._pause_s *= 2
        if self._ctx.cancel.wait(pause_s):
            raise CoordinationCancelled("the run was asked to stop")

    def _check_cancelled(self) -> None:
        check_cancelled(self._ctx)

    def _tell(self, state: CoordinationState, account: str) -> None:
        done, total = state.done_count, len(state.accounts)
        self._ctx.progress(done / total, f"{done} of {total} accounts; now {account or 'those of no account'}")

    def _checkpoint_if_due(self, state: CoordinationState) -> None:
        self._since_checkpoint += 1
        self._reviewed += 1
        is_due = (
            (self._is_storing_each and self._reviewed <= CHECKPOINT_EVERY_ACCOUNTS)
            or self._since_checkpoint >= CHECKPOINT_EVERY_ACCOUNTS
            or time.monotonic() - self._checkpoint_at >= CHECKPOINT_EVERY_S
        )
        if is_due and state.next_account is not None:
            self._ctx.checkpoint(state.to_json())
            self._since_checkpoint, self._checkpoint_at = 0, time.monotonic()


def _is_away(error: Exception) -> bool:
    if getattr(error, "status", None) in _AWAY_STATUSES or isinstance(error, ConnectionError):
        return True
    return getattr(error, "kind", "") in _AWAY_KINDS


def _may_pass(error: Exception) -> bool:
    """Return whether an account's failure may pass: all but 4xx, and what its own transactions are the reason of."""
    is_odd_answer = isinstance(error, AnswerUnreadable) or getattr(error, "kind", "") == "bad_response"
    return is_odd_answer or not isinstance(error, PermanentError)


def _is_unusable(error: Exception) -> bool:
    return getattr(error, "kind", "") in _UNUSABLE_KINDS or getattr(error, "status", None) == _UNAUTHORISED
