"""Stores runs that are submitted at once by one insert and offers them by one pipeline: group commit, decision 0010.

Two store at once, each alone. Whoever comes meanwhile waits for the turn, and the first of those who wait stores for
all of them. So one of a few waits for nobody, and each of a crowd pays a part of one round trip.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from typing import Final

import orjson

from shared import faults
from shared.bootstrap import Services
from shared.domain.execution import Execution
from shared.domain.lifecycle.decision import Decision
from shared.errors import NotStorable

TURN_WAIT_MAX_S: Final = 0.05
"""Nobody waits longer for another's insert: where the store hangs, none waits for two."""
GROUPED_BYTES_MAX: Final = 64 * 1024
"""A run whose input and basket take more is stored alone: a group would wait until it has gone over the wire."""
_GROUP_MAX: Final = 32
_CONCURRENT_MAX: Final = 2


@dataclass(eq=False, slots=True)
class _Ticket:
    """A run that is to be stored; whoever waits with it is woken once, by the turn or by what another did for it."""

    accepted: Decision
    is_leader: bool = False
    is_stored: bool = False
    error: BaseException | None = None
    woken: threading.Event = field(default_factory=threading.Event)


class GroupCommit:
    """The one way by which an acceptor stores single runs."""

    def __init__(self, services: Services, turn_wait_max_s: float = TURN_WAIT_MAX_S) -> None:
        self._services = services
        self._turn_wait_max_s = turn_wait_max_s
        self._lock = threading.Lock()
        self._storing_count = 0
        self._waiting: deque[_Ticket] = deque()

    def store(self, accepted: Decision, outputs: Mapping[str, bytes] | None = None) -> Execution:
        """Store and offer a run, with the ``outputs`` it begins with; answer it, or the one that holds its key.

        Raises Unavailable, OutcomeUnknown and NotStorable, as the store does.
        """
        if outputs or _size_bytes_of(accepted.execution) > GROUPED_BYTES_MAX:
            return self._store_alone(accepted, outputs)
        ticket = _Ticket(accepted)
        if self._begin_or_enqueue(ticket) or self._wait_for_turn(ticket):
            try:
                others = self._take_followers()
                if not others:
                    return self._store_alone(accepted)
                self._store_group([ticket, *others])
            finally:
                self._pass_leadership()
        if ticket.error is not None:
            raise copy(ticket.error)  # one of its own: several threads raise it
        return accepted.execution if ticket.is_stored else self._store_alone(accepted)

    def _begin_or_enqueue(self, ticket: _Ticket) -> bool:
        """True where few store and nobody waits; else the ticket waits."""
        with self._lock:
            if self._waiting or self._storing_count >= _CONCURRENT_MAX:
                self._waiting.append(ticket)
                return False
            self._storing_count += 1
            return True

    def _wait_for_turn(self, ticket: _Ticket) -> bool:
        """Wait; True where the turn has come, or does not come in time, False where another has seen to the run."""
        if not ticket.woken.wait(self._turn_wait_max_s):
            with self._lock:
                if ticket in self._waiting:
                    self._waiting.remove(ticket)
                    self._storing_count += 1
                    return True
            ticket.woken.wait()  # it was taken this moment, by one whom the store's deadline binds
        return ticket.is_leader

    def _take_followers(self) -> Sequence[_Ticket]:
        with self._lock:
            return [self._waiting.popleft() for _ in range(min(len(self._waiting), _GROUP_MAX - 1))]

    def _pass_leadership(self) -> None:
        """Give the turn to the first who waits; while another stores it rests with that one, and the group grows."""
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
        """Store the runs of a group, and wake all who wait; what is refused, each finds out alone why."""
        try:
            refused = self._insert_group([ticket.accepted for ticket in group])
            for at, ticket in enumerate(group):
                ticket.is_stored = at not in refused
        except BaseException as error:
            bare = copy(error)  # its traceback would hold the group, and the group it
            for ticket in group:
                ticket.error = bare
            raise
        finally:
            for ticket in group:
                ticket.woken.set()

    def _insert_group(self, group: Sequence[Decision]) -> Collection[int]:
        """Store and offer; answer the places of those of whom nothing was stored."""
        try:
            refused = self._services.queries.insert_all(group)
        except NotStorable:  # which one of them is
            return range(len(group))
        faults.reach("api.group_inserted")
        stored = [accepted for at, accepted in enumerate(group) if at not in refused]
        if stored:
            self._publish(stored)
        return refused

    def _publish(self, stored: Sequence[Decision], outputs: Mapping[str, bytes] | None = None) -> None:
        faults.reach("api.inserted")
        self._services.publisher.publish_accepted(stored, outputs)


def _size_bytes_of(run: Execution) -> int:
    """What of a run a caller may make large; a basket's literals are stored longer than they were written."""
    return len(run.input) + len(orjson.dumps(run.basket))
