"""What a bulk action does to one run: cancel, retry, erase or dismiss; a repeat by the same action changes nothing."""

from __future__ import annotations

from functools import partial
from typing import Final

import structlog

from shared.bootstrap import Services
from shared.domain.bulk_action import BulkAction, BulkActionKind, bulk_item_key
from shared.domain.execution import Execution, ExecutionRecord, Idempotency
from shared.domain.lifecycle.rerun import RetryFrom, RetryRequest, check_retryable
from shared.errors import AlreadyRequeued, BucketError, NotFinal, NotRetryable, OutcomeUnknown, Unavailable
from shared.ids import new_execution_id
from shared.run_actions.build_rerun import build_rerun, reused_steps
from shared.run_actions.cancel_run import request_cancel
from shared.run_actions.erase_run import erase_run
from worker.context import AgentContext

DONE: Final = "done"
FAILED: Final = "failed"
SKIPPED: Final = "skipped"
_LINES_MAX: Final = 100


class RunActions:
    """Acts on runs of one integrator in the name of one bulk action."""

    def __init__(self, services: Services, execution: Execution, action: BulkAction, ctx: AgentContext) -> None:
        """``execution`` is that of the action itself."""
        self._services = services
        self._integrator = execution.integrator
        self._traceparent = execution.traceparent
        self._only_dead_letters = action.query.only_dead_letters
        self._ctx = ctx
        self._reason = f"bulk action {ctx.execution_id}"
        self._lines = 0
        self._is_repeat = False
        self._interrupted: str | None = None
        self._act = {
            BulkActionKind.CANCEL: self._cancel,
            BulkActionKind.RETRY: self._retry,
            BulkActionKind.ERASE: self._erase,
            BulkActionKind.DISMISS: self._dismiss,
        }[action.kind]

    def act(self, execution_id: str, *, is_repeat: bool) -> str:
        """Act on a run and return what became of it: ``done``, ``failed``, or ``skipped`` if it has changed.

        ``is_repeat``: this action may have acted on it before. Raises Unavailable and OutcomeUnknown, after which the
        call may be repeated, and what it has begun is then ended.
        """
        self._is_repeat = is_repeat or execution_id == self._interrupted
        try:
            return self._act(execution_id)
        except (Unavailable, OutcomeUnknown):
            self._interrupted = execution_id
            raise
        except (NotRetryable, NotFinal, AlreadyRequeued):
            return SKIPPED
        except BucketError as error:
            return self._failed(execution_id, error.message)
        except (KeyError, TypeError, ValueError, AttributeError):
            structlog.get_logger().exception("a run cannot be read by a bulk action", run=execution_id)
            return self._failed(execution_id, "it cannot be read")

    def _failed(self, execution_id: str, message: str) -> str:
        self._lines += 1
        if self._lines <= _LINES_MAX:
            self._ctx.log(f"{execution_id}: {message}", level="warning")
        return FAILED

    def _cancel(self, execution_id: str) -> str:
        if request_cancel(self._services, self._integrator, execution_id, self._reason) is not None:
            return DONE
        run = self._services.store.load(self._integrator, execution_id)
        is_own = run is not None and run.cancel is not None and run.cancel.reason == self._reason
        return DONE if is_own else SKIPPED

    def _retry(self, execution_id: str) -> str:
        services = self._services
        read = partial(services.store.read, self._integrator, execution_id)
        original = read(outputs=(), causal=True)
        if original is None:
            return SKIPPED
        is_dead_letter = original.execution.dead_letter
        if self._only_dead_letters and not is_dead_letter and not self._is_repeat:
            return SKIPPED  # it was requeued or dismissed since it was listed
        check_retryable(original.execution, RetryFrom.FAILED)
        if reused := reused_steps(original.execution, RetryFrom.FAILED):
            original = read(outputs=reused, causal=True)
            if original is None:
                return SKIPPED
        now = services.clock.now()
        request = RetryRequest(
            id=new_execution_id(now),
            created_at=now,
            request_id=self._ctx.request_id,
            traceparent=self._traceparent,
            idempotency=Idempotency(bulk_item_key(self._ctx.execution_id, execution_id), self._reason),
            is_requeue=is_dead_letter or self._only_dead_letters,
        )
        decision, outputs = build_rerun(services, original, request, RetryFrom.FAILED)
        stored = services.store.create(decision, outputs)
        if stored.id == decision.execution.id:
            services.publisher.publish_accepted([decision], outputs)
        if original.execution.dead_letter:
            services.dead_letters.remove_requeued(self._integrator, execution_id)
        return DONE

    def _erase(self, execution_id: str) -> str:
        services = self._services
        run = services.store.load(self._integrator, execution_id)
        if run is None or (run.erased_at is not None and not self._is_repeat):
            return SKIPPED
        erase_run(services, run, partial(self._read, execution_id))
        return DONE

    def _dismiss(self, execution_id: str) -> str:
        dead_letters = self._services.dead_letters
        letter = dead_letters.find(self._integrator, execution_id)
        if letter is None or letter.requeued_as is not None:
            return SKIPPED
        if letter.dismissed_at is not None:
            return DONE if self._is_repeat else SKIPPED
        return DONE if dead_letters.dismiss(letter) else SKIPPED

    def _read(self, execution_id: str) -> ExecutionRecord:
        record = self._services.store.read(self._integrator, execution_id, outputs=(), causal=True)
        if record is None:
            raise NotFinal(f"execution {execution_id} is gone")
        return record
