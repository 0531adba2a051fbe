"""Group commit: submits that arrive together share one insert and one Redis pipeline.

Two threads store at the same time, each its own run. A thread that comes meanwhile waits for its turn, and the first
one of those that wait stores the runs of all of them. So with few submits none waits, and with many each pays a part of
one round trip. Measured in docs/decisions/0010-group-commit.md.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from typing import Final

import orjson

from shared import fault_injection
from shared.bootstrap import Services
from shared.domain.execution import Execution
from shared.domain.lifecycle.decision import Decision
from shared.errors import NotStorable

TURN_WAIT_MAX_S: Final = 0.05
"""No thread waits longer for the insert of another one: if the store hangs, none waits for two time limits."""
GROUPED_BYTES_MAX: Final = 64 * 1024
"""A run whose input and basket are larger is stored alone: a group would wait until it is sent to MongoDB."""
_GROUP_MAX: Final = 32
_CONCURRENT_MAX: Final = 2


@dataclass(eq=False, slots=True)
class _Ticket:
    """A run to be stored. Its thread is woken once: if it is the leader now, or if a leader has handled the run."""

    decision: Decision
    is_leader: bool = False
    is_stored: bool = False
    error: BaseException | None = None
    woken: threading.Event = field(default_factory=threading.Event)


class GroupCommit:
    """Stores single runs for the acceptor, in groups if several come at once."""

    def __init__(self, services: Services, turn_wait_max_s: float = TURN_WAIT_MAX_S) -> None:
        self._services = services
        self._turn_wait_max_s = turn_wait_max_s
        self._lock = threading.Lock()
        self._storing_count = 0
        self._waiting: deque[_Ticket] = deque()

    def store(self, accepted: Decision, outputs: Mapping[str, bytes] | None = None) -> Execution:
        """Store and offer a run, with the ``outputs`` that it begins with.

        Returns the run, or the run that already holds its idempotency key. Raises Unavailable, OutcomeUnknown and
        NotStorable, as the store does.
        """
        if outputs or _size_bytes_of(accepted.execution) > GROUPED_BYTES_MAX:
            return self._store_alone(accepted, outputs)
        ticket = _Ticket(accepted)
        if self._begin_or_enqueue(ticket) or self._wait_for_turn(ticket):
            try:
                followers = self._take_followers()
                if not followers:
                    return self._store_alone(accepted)
                self._store_group([ticket, *followers])
            finally:
                self._pass_leadership()
        if ticket.error is not None:
            raise copy(ticket.error)  # a copy of its own: several threads raise it
        return accepted.execution if ticket.is_stored else self._store_alone(accepted)

    def _begin_or_enqueue(self, ticket: _Ticket) -> bool:
        """Return whether the run can be stored now: few threads store, and none waits. If not, queue the ticket."""
        with self._lock:
            if self._waiting or self._storing_count >= _CONCURRENT_MAX:
                self._waiting.append(ticket)
                return False
            self._storing_count += 1
            return True

    def _wait_for_turn(self, ticket: _Ticket) -> bool:
        """Wait for the turn; return whether this thread must store.

        It must if it was made the leader, or if its turn did not come in time. It must not if a leader handled the run.
        """
        if not ticket.woken.wait(self._turn_wait_max_s):
            with self._lock:
                if ticket in self._waiting:
                    self._waiting.remove(ticket)
                    self._storing_count += 1
                    return True
            ticket.woken.wait()  # a leader took it at this moment; the store's time limit ends that wait
        return ticket.is_leader

    def _take_followers(self) -> Sequence[_Ticket]:
        with self._lock:
            return [self._waiting.popleft() for _ in range(min(len(self._waiting), _GROUP_MAX - 1))]

    def _pass_leadership(self) -> None:
        """Make the first waiting thread the leader; while another thread stores, leave that to it: the group grows."""
        with self._lock:
            if self._waiting and self._storing_count == 1:
                first = self._waiting.popleft()
                first.is_leader = True
                first.woken.set()
            else:
                self._storing_count -= 1

    def _store_alone(self, accepted: Decision, outputs: Mapping[str, bytes] | None = None) -> Execution:
        stored = self._services.store.create(accepted, outputs)
        if stored.id == accepted.execution.id:
            self._publish([accepted], outputs)
        return stored

    def _store_group(self, group: Sequence[_Ticket]) -> None:
        """Store the runs of a group and wake their threads; a refused run is retried alone, to get its own error."""
        try:
            refused = self._insert_group([ticket.decision for ticket in group])
            for index, ticket in enumerate(group):
                ticket.is_stored = index not in refused
        except BaseException as error:
            shared_error = copy(error)  # without the traceback, which would make a reference cycle with the group
            for ticket in group:
                ticket.error = shared_error
            raise
        finally:
            for ticket in group:
                ticket.woken.set()

    def _insert_group(self, group: Sequence[Decision]) -> Collection[int]:
        """Store and offer the runs of a group; return the indexes of the runs that were not stored."""
        try:
            refused = self._services.queries.insert_all(group)
        except NotStorable:  # it is not known which of them is not storable
            return range(len(group))
        fault_injection.reach("api.group_inserted")
        stored = [accepted for index, accepted in enumerate(group) if index not in refused]
        if stored:
            self._publish(stored)
        return refused

    def _publish(self, stored: Sequence[Decision], outputs: Mapping[str, bytes] | None = None) -> None:
        fault_injection.reach("api.inserted")
        self._services.publisher.publish_accepted(stored, outputs)


def _size_bytes_of(run: Execution) -> int:
    """Return the size of the parts that a caller can make large; JSON literals of a basket grow when stored."""
    return len(run.input) + len(orjson.dumps(run.basket))
