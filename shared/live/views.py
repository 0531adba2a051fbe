"""View cache (materialised views, read model): the rendered polls of executions in Redis, and outputs for an hour.

The key of a view has its run's integrator, so that a look-up for one integrator never finds a run of another.
A view is only replaced by one with an equal or higher ``rev``, and is deleted in case of doubt. A copy of a run as it
was stored is kept beside its first view, for 5 s at most: the worker that begins the run at once need not read it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import starmap
from typing import Any, Final

import redis

from shared.live.qualified_id import qualified_id, qualified_prefix
from shared.live.redis_client import ConnectionReader
from shared.live.signals import pubsub

FINAL_VIEW_TTL_S: Final = 24 * 3600
FILLED_VIEW_TTL_MS: Final = 2_000
VIEW_STALE_AFTER_S: Final = 1.0
"""Age in seconds above which a view is not stored, because its process may have been suspended."""
OUTPUT_TTL_S: Final = 3600
VIEW_MAX_BYTES: Final = 1024 * 1024
CARRIED_VIEW_MAX_BYTES: Final = 16 * 1024
COPY_TTL_MS: Final = 5_000
COPY_MAX_BYTES: Final = 16 * 1024

_PREFIX: Final = "execution:"
_COPY_SUFFIX: Final = ":accepted"
COPY_AFFIXES: Final = (_PREFIX, _COPY_SUFFIX)
"""What stands before and after a run's id in the key of its copy."""

# Two workers of one execution may write in the wrong order: the higher revision stays. The command that stores a view
# also wakes the held polls (pub/sub), which wait for a final view, so one of usual size goes with its wake-up. Several
# views are one command, because each costs its sender more than Redis.
_PUT_NEWER: Final = f"""
for index, key in ipairs(KEYS) do
  local view, rev, ttl_ms = unpack(ARGV, 3 * index - 2, 3 * index)
  local stored_rev = string.match(redis.call('GETRANGE', key, 0, 400), '"rev":(%d+)')
  if not stored_rev or tonumber(stored_rev) <= tonumber(rev) then
    redis.call('SET', key, view, 'PX', ttl_ms)
    redis.call('DEL', '{_PREFIX}' .. string.match(key, '[^:/]+$') .. '{_COPY_SUFFIX}')
    local wakeup = string.sub(key, {len(_PREFIX) + 1})
    if tonumber(ttl_ms) == {FINAL_VIEW_TTL_S * 1_000} and #view <= {CARRIED_VIEW_MAX_BYTES} then
      wakeup = wakeup .. ' ' .. view
    end
    redis.call('PUBLISH', '{pubsub.WAKEUP_CHANNEL}', wakeup)
  end
end
"""
# What a reader has shown must not be followed by what an older view shows. So its own view replaces that one, or, if it
# has none to store, the older one is deleted. It wakes nobody.
_FILL: Final = """
local stored_rev = string.match(redis.call('GETRANGE', KEYS[1], 0, 400), '"rev":(%d+)')
if stored_rev and tonumber(stored_rev) >= tonumber(ARGV[1]) then return end
if ARGV[2] then redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3]) else redis.call('DEL', KEYS[1]) end
"""
# The output of a run that was erased meanwhile (``erased_runs``) is not stored.
_PUT_OUTPUTS: Final = """
for index, key in ipairs(KEYS) do
  if redis.call('EXISTS', 'erased:' .. string.match(key, '^output:[^:]-([^:/]+):')) == 0 then
    redis.call('SET', key, ARGV[index + 1], 'EX', ARGV[1])
  end
end
"""
# A heartbeat extends the TTL of a view only if it shows the revision that the heartbeat's update returned.
_KEEP_IF_AT: Final = """
local stored_rev = string.match(redis.call('GETRANGE', KEYS[1], 0, 400), '"rev":(%d+)')
if stored_rev ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
"""


def view_key(integrator: str, execution_id: str) -> str:
    """Return the Redis key of the view of an execution."""
    return f"{_PREFIX}{qualified_id(integrator, execution_id)}"


def view_key_prefix(integrator: str) -> str:
    """Return what stands before the id in the keys of an integrator's views."""
    return f"{_PREFIX}{qualified_prefix(integrator)}"


def copy_key(execution_id: str) -> str:
    """Return the Redis key of the copy of a run that was just accepted; no caller sees it, so the id is enough."""
    return execution_id.join(COPY_AFFIXES)


def output_key(integrator: str, execution_id: str, step: str) -> str:
    """Return the Redis key of a step's output."""
    return f"output:{qualified_id(integrator, execution_id)}:{step}"


def erased_key(execution_id: str) -> str:
    """Return the Redis key that marks an execution as erased."""
    return f"erased:{execution_id}"


@dataclass(frozen=True, slots=True)
class RenderedView:
    """A rendered view: of which execution, at which revision, and whether the run is over (final)."""

    integrator: str
    execution_id: str
    body: bytes
    rev: int
    is_final: bool


class ViewCache:
    """The cache of rendered views in Redis; ``live_ttl_s`` is the TTL of a view of a run that is not over."""

    def __init__(self, client: redis.Redis, live_ttl_s: float) -> None:
        self._redis = client
        self._reader = ConnectionReader(client.connection_pool)
        self._live_ms = int(live_ttl_s * 1_000)

    def reconnect(self) -> None:
        """Give up the connections of this client, because they lead to a server that has become a replica."""
        self._redis.connection_pool.disconnect(inuse_connections=False)
        self._reader = ConnectionReader(self._redis.connection_pool)

    def get(self, integrator: str, execution_id: str) -> bytes | None:
        """Return the view, without its closing brace; None if the integrator has none. Raises RedisError."""
        return self._reader.get(view_key(integrator, execution_id))

    def ttl_s(self, integrator: str, execution_id: str) -> float:
        """Return the remaining TTL of the view in seconds; 0 if there is none. Raises RedisError."""
        ttl_ms: int = self._redis.pttl(view_key(integrator, execution_id))
        return max(ttl_ms, 0) / 1_000

    def put(self, pipe: Any, views: Iterable[RenderedView]) -> None:
        """Append to ``pipe`` one command that stores views and wakes their held polls, except if a newer one exists."""
        keys: list[str] = []
        args: list[bytes | int] = []
        for view in views:
            if len(view.body) > VIEW_MAX_BYTES:
                # Too large for the cache: polls read MongoDB. An older, smaller view must not be used meanwhile.
                self.invalidate(pipe, view.integrator, view.execution_id)
                continue
            keys.append(view_key(view.integrator, view.execution_id))
            args += (view.body, view.rev, FINAL_VIEW_TTL_S * 1_000 if view.is_final else self._live_ms)
        if keys:
            pipe.eval(_PUT_NEWER, len(keys), *keys, *args)

    def put_first(self, pipe: Any, integrator: str, execution_id: str, view: bytes, copy: bytes | None = None) -> None:
        """Append to ``pipe`` the commands that store the view of a run just accepted, unless there is one already.

        ``copy`` is the run as it was stored, for the worker; it is kept until the next view is put.
        """
        # Raw commands: redis-py's ``set`` first checks each of its options, which costs 15 µs of every accept.
        if copy is not None and len(copy) <= COPY_MAX_BYTES:
            pipe.execute_command("SET", copy_key(execution_id), copy, "PX", COPY_TTL_MS)
        if len(view) <= VIEW_MAX_BYTES:
            pipe.execute_command("SET", view_key(integrator, execution_id), view, "PX", self._live_ms, "NX")

    def copies(self, execution_ids: Sequence[str]) -> list[bytes]:
        """Return the copies that there are of these runs; each may be older than what is stored. Raises RedisError."""
        found: Any = self._redis.mget(map(copy_key, execution_ids))
        return [copy for copy in found if copy is not None]

    def invalidate(self, pipe: Any, integrator: str, execution_id: str) -> None:
        """Append to ``pipe`` commands that delete a view and wake its held polls; the next reader renders it again."""
        pipe.delete(view_key(integrator, execution_id), copy_key(execution_id))
        pubsub.publish_wakeup(pipe, qualified_id(integrator, execution_id))

    def delete(self, runs: Sequence[tuple[str, str]]) -> None:
        """Delete the views of runs, each as (integrator, id), that no longer exist. Raises RedisError."""
        if runs:
            self._redis.delete(*starmap(view_key, runs))

    def fill(self, view: RenderedView) -> None:
        """Store a view that a reader rendered, unless there is one of its revision or a newer one; a live one for 2 s.

        Raises RedisError.
        """
        if len(view.body) > VIEW_MAX_BYTES:
            self.drop_older(view.integrator, view.execution_id, view.rev)
            return
        ttl_ms = FINAL_VIEW_TTL_S * 1_000 if view.is_final else min(FILLED_VIEW_TTL_MS, self._live_ms)
        self._redis.eval(_FILL, 1, view_key(view.integrator, view.execution_id), view.rev, view.body, ttl_ms)

    def drop_older(self, integrator: str, execution_id: str, rev: int) -> None:
        """Delete the view if it is older than ``rev``, which a caller has seen. Raises RedisError."""
        self._redis.eval(_FILL, 1, view_key(integrator, execution_id), rev)

    def extend_ttl(self, integrator: str, execution_id: str, rev: int) -> bool:
        """Extend the TTL of a live view if it shows ``rev``; False if it must be rendered again. Raises RedisError."""
        key = view_key(integrator, execution_id)
        return bool(self._redis.eval(_KEEP_IF_AT, 1, key, str(rev), str(self._live_ms)))

    def put_outputs(self, pipe: Any, outputs: Mapping[tuple[str, str, str], bytes]) -> None:
        """Append to ``pipe`` one command that stores outputs, by (integrator, execution, step), for an hour."""
        if outputs:
            keys = starmap(output_key, outputs)
            pipe.eval(_PUT_OUTPUTS, len(outputs), *keys, OUTPUT_TTL_S, *outputs.values())

    def get_output(self, integrator: str, execution_id: str, step: str) -> bytes | None:
        """Return a step's output as JSON; None if Redis does not have it. Raises RedisError."""
        output: bytes | None = self._redis.get(output_key(integrator, execution_id, step))  # type: ignore[assignment]
        return output
