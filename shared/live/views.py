"""The poll of an execution as rendered, kept in Redis: replaced only by one of a higher ``rev``, gone when in doubt."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import redis

from shared.live import pubsub
from shared.live.redis_client import ThreadLocalReader

FINAL_VIEW_TTL_S: Final = 24 * 3600
FILLED_VIEW_TTL_MS: Final = 2_000
OUTPUT_TTL_S: Final = 3600
VIEW_MAX_BYTES: Final = 1024 * 1024

_PREFIX: Final = "execution:"

# Two workers of one execution may write in the wrong order: the higher revision stays. Whoever waits is woken here, by
# the very command that shows the change. Several views are one command, for each costs its sender more than Redis.
_PUT_NEWER: Final = f"""
for place, key in ipairs(KEYS) do
  local view, rev, kept_ms = unpack(ARGV, 3 * place - 2, 3 * place)
  local known = string.match(redis.call('GETRANGE', key, 0, 400), '"rev":(%d+)')
  if not known or tonumber(known) <= tonumber(rev) then
    redis.call('SET', key, view, 'PX', kept_ms)
    redis.call('PUBLISH', '{pubsub.WAKEUP_CHANNEL}', string.sub(key, {len(_PREFIX) + 1}))
  end
end
"""
_PUT_OUTPUTS: Final = """
for place, key in ipairs(KEYS) do
  redis.call('SET', key, ARGV[place + 1], 'EX', ARGV[1])
end
"""
# A heartbeat keeps a view alive only where it shows the revision that its update returned.
_KEEP_IF_AT: Final = """
local known = string.match(redis.call('GETRANGE', KEYS[1], 0, 400), '"rev":(%d+)')
if known ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
"""


def view_key(execution_id: str) -> str:
    """Answer the key under which the rendered poll lies."""
    return f"{_PREFIX}{execution_id}"


def output_key(execution_id: str, step: str) -> str:
    """Answer the key under which a step's output lies for an hour."""
    return f"output:{execution_id}:{step}"


@dataclass(frozen=True, slots=True)
class RenderedView:
    """One rendered poll and what it shows: whose, at which revision, and whether it is the last."""

    execution_id: str
    body: bytes
    rev: int
    is_final: bool


class ViewCache:
    """Rendered polls in Redis; ``live_s`` bounds how long a view may be believed that nobody renews."""

    def __init__(self, client: redis.Redis, live_s: float) -> None:
        self._redis = client
        self._reader = ThreadLocalReader(client.connection_pool)
        self._live_ms = int(live_s * 1_000)

    def get(self, execution_id: str) -> bytes | None:
        """Answer the rendered poll, without its closing brace; None where none is kept. Raises RedisError."""
        return self._reader.get(view_key(execution_id))

    def ttl_s(self, execution_id: str) -> float:
        """Answer for how many seconds the view may still be believed; 0 where none is. Raises RedisError."""
        left_ms: int = self._redis.pttl(view_key(execution_id))
        return max(left_ms, 0) / 1_000

    def put(self, pipe: Any, views: Iterable[RenderedView]) -> None:
        """Append to ``pipe`` the one command that keeps views and wakes who waits, each unless a newer one is there."""
        keys: list[str] = []
        told: list[bytes | int] = []
        for view in views:
            if len(view.body) > VIEW_MAX_BYTES:
                # Every poll of it is answered from MongoDB; an older, smaller one must not be believed meanwhile.
                self.invalidate(pipe, view.execution_id)
                continue
            keys.append(view_key(view.execution_id))
            told += (view.body, view.rev, FINAL_VIEW_TTL_S * 1_000 if view.is_final else self._live_ms)
        if keys:
            pipe.eval(_PUT_NEWER, len(keys), *keys, *told)

    def put_if_absent(self, pipe: Any, execution_id: str, view: bytes) -> None:
        """Append to ``pipe`` what keeps the view of a run just accepted, unless a worker was there before."""
        if len(view) <= VIEW_MAX_BYTES:
            # As it goes over the wire: redis-py's ``set`` weighs each of its options first, 15 µs of every accept.
            pipe.execute_command("SET", view_key(execution_id), view, "PX", self._live_ms, "NX")

    def invalidate(self, pipe: Any, execution_id: str) -> None:
        """Append to ``pipe`` what forgets a view, so that the next reader renders it anew; whoever waits reads now."""
        pipe.delete(view_key(execution_id))
        pubsub.publish_wakeup(pipe, execution_id)

    def delete(self, execution_ids: Sequence[str]) -> None:
        """Forget the views of runs that are gone for good. Raises RedisError."""
        if execution_ids:
            self._redis.delete(*map(view_key, execution_ids))

    def fill(self, execution_id: str, view: bytes, *, is_final: bool) -> None:
        """Keep a view that a reader rendered, only where none is: it may be older than what a worker writes now."""
        if len(view) <= VIEW_MAX_BYTES:
            kept_ms = FINAL_VIEW_TTL_S * 1_000 if is_final else min(FILLED_VIEW_TTL_MS, self._live_ms)
            self._redis.set(view_key(execution_id), view, px=kept_ms, nx=True)

    def extend_ttl(self, execution_id: str, rev: int) -> bool:
        """Keep a live view for another while where it shows ``rev``; False where it must be rendered anew."""
        return bool(self._redis.eval(_KEEP_IF_AT, 1, view_key(execution_id), str(rev), str(self._live_ms)))

    def put_outputs(self, pipe: Any, outputs: Mapping[tuple[str, str], bytes]) -> None:
        """Append to ``pipe`` what keeps outputs, by execution and step, for an hour: one command for them all."""
        if outputs:
            pipe.eval(
                _PUT_OUTPUTS, len(outputs), *(output_key(*named) for named in outputs), OUTPUT_TTL_S, *outputs.values()
            )

    def get_output(self, execution_id: str, step: str) -> bytes | None:
        """Answer a step's output as JSON; None where Redis has forgotten. Raises RedisError."""
        found: bytes | None = self._redis.get(output_key(execution_id, step))  # type: ignore[assignment]
        return found
