"""What an API process does beside its requests: prepares the store, keeps the clock, takes back lost inserts, learns.

Requests only look at what it found.
"""

from __future__ import annotations

import queue
import threading
import time
from dataclasses import dataclass
from functools import partial
from typing import Final

import structlog

from api.hints.poll_hints import OVER, Hints, hints_for
from api.hints.schedule_cache import Expectations
from api.http.long_poll import Holder
from shared.bootstrap import Services
from shared.domain.execution import Execution
from shared.errors import BucketError, Overloaded, Unavailable
from shared.live.redis_monitor import Pulse
from shared.live.render import Head, head_of
from shared.live.view_trailer import Mark, cut_mark, mark_of
from shared.store.executions.settle import until_answered

_WITHDRAWALS_MAX: Final = 10_000
_LOOK_EVERY_S: Final = 0.1
_WITHDRAWN_WITHIN_S: Final = 0.2


@dataclass(frozen=True, slots=True)
class Shown:
    """A rendered view without its mark, and the hints of this moment."""

    head: Head
    bare: bytes
    hints: Hints

    @property
    def json(self) -> bytes:
        """The view as a caller gets it."""
        return self.bare + self.hints.tail


class Keeper:
    """What an API process knows besides: of its stores, of how long runs take, and of who is held."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._expectations = Expectations(services)
        self.pulse = Pulse(services.settings.redis_url, services.clock.glance)
        self.holder = Holder(services.settings, self.pulse)
        self._stop = threading.Event()
        self._prepared = threading.Event()
        self._refused = ""
        self._lost: queue.Queue[Execution] = queue.Queue(_WITHDRAWALS_MAX)

    def start(self) -> None:
        """Begin; to be called in the process that serves the requests, after any fork."""
        self.pulse.start()
        for work in (self._watch_store, self._withdraw_lost, self._learn):
            threading.Thread(target=work, name=work.__name__.strip("_"), daemon=True).start()

    def stop(self) -> None:
        """Stop looking, and hold nobody any more."""
        self._stop.set()
        self.holder.let_go()
        self.pulse.stop()

    @property
    def is_prepared(self) -> bool:
        """True once the indexes are made, without which no key is unique."""
        return self._prepared.is_set()

    def shown(self, view: bytes) -> Shown:
        """Answer a rendered view as it is shown now."""
        head = head_of(view)
        bare, mark = cut_mark(view)
        return Shown(head, bare, self.hints_for(head, mark))

    def hints_of(self, run: Execution) -> Hints:
        """As ``hints_for``, of a run that is at hand."""
        return self.hints_for(Head(run.id, str(run.status), run.done, run.rev), mark_of(run))

    def hints_for(self, head: Head, mark: Mark) -> Hints:
        """Answer when to poll a run again, and what it waits for."""
        if head.done:
            return OVER
        return hints_for(head, mark, self._services.clock.glance(), self.pulse.last, self._expectations.of)

    def check_may_accept(self, beside: int = 0) -> None:
        """Raise Unavailable or Overloaded where a new run should not be taken now, ``beside`` others just taken."""
        look = self.pulse.last
        waiting = look.backlog + beside
        if not look.connected:
            raise Unavailable("Redis is away; nothing was stored, send the same request again", retry_after_s=2)
        if waiting >= self._services.settings.backlog_max:
            raise Overloaded(
                f"{waiting} steps are waiting for a worker; nothing was stored, send the same request again later",
                retry_after_s=10,
            )
        if not self.is_prepared:
            raise Unavailable("MongoDB is not prepared yet; nothing was stored, send the same request again")

    def withdraw(self, run: Execution) -> None:
        """Take back, as soon as the store answers, an insert whose answer was lost and that nobody could find."""
        try:
            self._lost.put_nowait(run)
        except queue.Full:
            structlog.get_logger().error("an insert of unknown outcome is left to run", execution_id=run.id)

    def look_at_store(self) -> None:
        """Ask MongoDB for its time, and prepare it once; raises nothing that it answers, or does not.

        Where it does not answer this look and answers other calls meanwhile it is busy, and that refuses nobody.
        """
        database = self._services.database
        began = time.monotonic()
        try:
            self._services.clock.sync()
        except BucketError as away:
            if database.is_away or database.has_answered_since(began):
                return
            structlog.get_logger().warning("MongoDB is away", reason=away.message)
            database.is_away = True
            return
        database.is_away = False
        if not self.is_prepared:
            self._prepare()

    def _prepare(self) -> None:
        """Prepare MongoDB, which answers; where it refuses (an index, say), runs are refused and polls are not."""
        try:
            self._services.prepare()
            self._prepared.set()
        except BucketError as refused:
            if refused.message != self._refused:  # once, and not ten times a second
                structlog.get_logger().warning("MongoDB is not prepared yet", reason=refused.message)
            self._refused = refused.message

    def _watch_store(self) -> None:
        """Look at MongoDB ten times a second: while it is away, requests fail at once and leave the threads free."""
        while not self._stop.wait(_LOOK_EVERY_S):
            try:
                self.look_at_store()
            except Exception:  # noqa: BLE001  (it must go on: nothing else looks)
                structlog.get_logger().exception("a look at MongoDB failed")

    def _learn(self) -> None:
        while not self._stop.wait(_LOOK_EVERY_S):
            try:
                if self.pulse.last.connected:
                    self._expectations.refresh()
            except Exception:  # noqa: BLE001  (hints only grow worse; it must go on)
                structlog.get_logger().exception("how long runs take was not learnt")

    def _withdraw_lost(self) -> None:
        while not self._stop.is_set():
            try:
                run = self._lost.get(timeout=0.5)
            except queue.Empty:
                continue
            log = structlog.get_logger().bind(execution_id=run.id, request_id=run.request_id)
            withdraw = partial(self._services.store.withdraw, run.integrator, run.id)
            while self._services.database.is_away and not self._stop.wait(_WITHDRAWN_WITHIN_S):
                pass  # without a try, and a line in the log, each time
            try:
                withdrawn = until_answered(withdraw, give_up=self._stop.is_set, wait_max_s=_WITHDRAWN_WITHIN_S)
            except Exception:
                log.exception("an insert was not taken back")
                continue
            log.info("an insert was taken back", withdrawn=withdrawn)
