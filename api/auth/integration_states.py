"""Checks at each submit that the integration of its key is active, without a round trip of its own.

The statuses are cached in this process; a background thread asks for those that have changed since it last asked. Only
a refusal needs the status of this moment: callers do not repeat it, and a key may have been issued just now, by another
process. While MongoDB is away, the cached ones count.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Final

from shared.clock import boottime_s
from shared.domain.access.caller import Caller
from shared.domain.access.integration import IntegrationState, IntegrationStatus
from shared.errors import IntegrationInactive, Unavailable
from shared.store.access.integration_store import MongoIntegrationStore

_OVERLAP: Final = timedelta(seconds=10)
"""Changes are asked for again for this long: one that was stored later may bear an earlier time."""
_RECHECK_AFTER_S: Final = 60.0
"""After a step of the server's clock a change may be missed; it is found after this time at the latest."""
_REFUSED_AGAIN_S: Final = 0.1
"""How old a status may be that refuses: a flood of refused submits is not one of reads."""


class IntegrationStates:
    """The statuses of the integrations whose keys this process has seen."""

    def __init__(
        self, store: MongoIntegrationStore, *, is_required: bool, clock_s: Callable[[], float] = boottime_s
    ) -> None:
        """``is_required``: a key that belongs to no integration may not submit either."""
        self._store = store
        self._clock_s = clock_s
        self._lock = threading.Lock()
        self._is_required = is_required
        self._states: dict[str, IntegrationState] = {}
        self._put_at_s: dict[str, float] = {}
        self._read_at_s: dict[str, float] = {}
        """When those that were not active were last read."""
        self._changes_seen: datetime | None = None
        self._rechecked_at_s = clock_s()

    def check_may_start_runs(self, caller: Caller, *, is_submit: bool) -> None:
        """Raise IntegrationInactive if the integration of ``caller`` is not active.

        Where integrations are required, a caller without one may not submit either; to repeat a dead letter is the
        work of an operator and no submit. Raises Unavailable if the status is not cached and MongoDB is away.
        """
        if caller.integration is None:
            if self._is_required and is_submit:
                raise IntegrationInactive(
                    "here only keys of an active integration may submit, and yours belongs to none; ask an admin of "
                    "Bucket to register one, or for a key that names yours"
                )
            return
        status = self._status_of(caller.integration)
        if status is not IntegrationStatus.ACTIVE:
            raise IntegrationInactive(
                f"the integration {caller.integration} of this key is {status or 'not known'}, and only an active one "
                "may start runs; polls go on; ask an admin of Bucket to activate it"
            )

    def put(self, state: IntegrationState) -> None:
        """Take over the state of an integration that this process has just changed or read, unless it has a newer."""
        with self._lock:
            known = self._states.get(state.id)
            if known is None or state.version > known.version:
                self._states[state.id], self._put_at_s[state.id] = state, self._clock_s()

    def _recheck(self) -> None:
        """Read all statuses again; they may be older than the known ones, as after a restored backup.

        What was read before the status was last taken over is passed over.
        """
        began_at_s, known = self._clock_s(), list(self._states)
        found = {state.id: state for state in self._store.find_states(known)}
        with self._lock:
            for integration_id in known:
                if began_at_s < self._put_at_s.get(integration_id, -math.inf):
                    continue
                if integration_id in found:
                    self._states[integration_id] = found[integration_id]
                else:  # it is not there any more, or cannot be read: it is not active
                    self._states.pop(integration_id, None)

    def refresh(self, now: datetime) -> None:
        """Take over what has changed since the last call; ``now`` is the store's time."""
        if not self._states:
            self._changes_seen = None
            return
        since = (self._changes_seen or now) - _OVERLAP
        for integration_id, state, changed_at in self._store.states_changed_since(since):
            self._changes_seen = max(self._changes_seen or changed_at, changed_at)
            if state is None:  # it cannot be read, and so not be suspended: it is not active
                self._states.pop(integration_id, None)
            elif integration_id in self._states:
                self.put(state)
        self._changes_seen = max(self._changes_seen or now, now - _OVERLAP)
        if self._clock_s() - self._rechecked_at_s > _RECHECK_AFTER_S:
            self._rechecked_at_s = self._clock_s()
            self._recheck()

    def _status_of(self, integration_id: str) -> IntegrationStatus | None:
        state = self._states.get(integration_id)
        if state is None:
            self._read(integration_id)
        elif state.status is not IntegrationStatus.ACTIVE and self._is_old(integration_id):
            with suppress(Unavailable):
                self._read(integration_id)
        state_now = self._states.get(integration_id)
        return None if state_now is None else state_now.status

    def _is_old(self, integration_id: str) -> bool:
        return self._clock_s() - self._read_at_s.get(integration_id, -math.inf) > _REFUSED_AGAIN_S

    def _read(self, integration_id: str) -> None:
        began_at_s = self._clock_s()
        for state in self._store.find_states([integration_id]):
            self.put(state)
            self._read_at_s[state.id] = began_at_s
