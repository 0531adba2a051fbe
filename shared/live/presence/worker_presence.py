"""Worker presence (liveness): each worker's main process renews an entry in Redis, and the API counts the entries.

Beside its entry a worker keeps a report of the agents that it cannot run. A worker without a report, such as one of an
older release, counts as one that can run all of them. What it runs is announced at most once a second if it changes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

import orjson
import redis

from shared.clock import boottime_s
from shared.domain.definitions.unavailability import Unavailability
from shared.live.presence.presence_entry import (
    RECONCILERS_KEY,
    TTL_S,
    PresentReconciler,
    PresentWorker,
    RunningSlot,
    WorkerInfo,
    decode_reconciler,
    decode_worker,
)
from shared.live.redis_client import drop_if_demoted

PRESENCE_RENEW_EVERY_S: Final = 5.0
_LOOK_EVERY_S: Final = 1.0
_KEY: Final = "workers"
# Under a prefix that the ACL of earlier releases grants: without the right to it no process would reach Redis at all.
_REPORTS_KEY: Final = "metrics:unavailable_agents"
_ENTRIES_KEY: Final = "metrics:workers"

# By Redis's own time: the entries of machines whose clocks differ must last equally long. A worker of an older release
# removes the names of those that are gone, and leaves their entries, so each is checked by its name.
_ANNOUNCE: Final = """
local t = redis.call('TIME')
redis.call('ZADD', KEYS[1], t[1] + ARGV[2], ARGV[1])
if ARGV[3] == '' then
  redis.call('HDEL', KEYS[2], ARGV[1])
else
  redis.call('HSET', KEYS[2], ARGV[1], ARGV[3])
end
if ARGV[4] == '' then
  redis.call('HDEL', KEYS[3], ARGV[1])
else
  local heartbeat = t[1] .. string.format('%03d', math.floor(t[2] / 1000))
  redis.call('HSET', KEYS[3], ARGV[1], ARGV[4] .. '\\n' .. heartbeat .. '\\n' .. ARGV[5])
end
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', t[1])
for at = 2, 3 do
  for _, name in ipairs(redis.call('HKEYS', KEYS[at])) do
    if not redis.call('ZSCORE', KEYS[1], name) then
      redis.call('HDEL', KEYS[at], name)
    end
  end
end
"""
# The workers of a fleet have mostly the same report and are mostly of few kinds, so each is sent once; no report is of
# use if a worker has none.
_READ: Final = """
local present = redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. redis.call('TIME')[1], '+inf')
local reports, pools = {}, {}
local seen, at, all_report = {}, {}, true
for _, name in ipairs(present) do
  local report = redis.call('HGET', KEYS[2], name)
  if not report then
    all_report = false
  elseif not seen[report] then
    seen[report] = true
    reports[#reports + 1] = report
  end
  local pool = string.match(redis.call('HGET', KEYS[3], name) or '', '^[^\\n]*')
  if not at[pool] then
    at[pool] = #pools + 2
    pools[#pools + 1] = pool
    pools[#pools + 1] = 0
  end
  pools[at[pool]] = pools[at[pool]] + 1
end
return {#present, all_report and reports or {}, pools}
"""
_READ_ALL: Final = """
local now = redis.call('TIME')[1]
local workers = {}
for _, name in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. now, '+inf')) do
  workers[#workers + 1] = name
  workers[#workers + 1] = redis.call('HGET', KEYS[2], name) or ''
end
return {tonumber(now), workers, redis.call('HGETALL', KEYS[3])}
"""


@dataclass(frozen=True, slots=True)
class Fleet:
    """The workers and reconcilers that are present, sorted by name."""

    workers: tuple[PresentWorker, ...] = ()
    reconcilers: tuple[PresentReconciler, ...] = ()


def read_presence(pipe: Any) -> Any:
    """Read how many workers are present, their different reports, and their pools, from a client or in a pipeline.

    The reply is a list of these three; :func:`merge_reports` and ``decode_pools`` take the second
    and the third. There are no reports if a worker has none: it can run every agent.
    """
    return pipe.eval(_READ, 3, _KEY, _REPORTS_KEY, _ENTRIES_KEY)


def read_fleet(client: Any) -> Fleet:
    """Return the workers and the reconcilers that are present, by name. Raises RedisError."""
    now_s, workers, reconcilers = client.eval(_READ_ALL, 3, _KEY, _ENTRIES_KEY, RECONCILERS_KEY)
    found = [decode_reconciler(*pair, now_s) for pair in zip(reconcilers[::2], reconcilers[1::2], strict=True)]
    return Fleet(
        tuple(sorted((decode_worker(*pair) for pair in zip(workers[::2], workers[1::2], strict=True)), key=_name)),
        tuple(sorted((each for each in found if each is not None), key=_name)),
    )


def _name(each: PresentWorker | PresentReconciler) -> str:
    return each.name


def encode_report(unavailable: Mapping[str, Unavailability]) -> bytes:
    """Return the report of a worker that cannot run these agents; it is empty if there are none."""
    members = {name: [why.reason, why.lacks_settings] for name, why in sorted(unavailable.items())}
    return orjson.dumps(members) if members else b""


def merge_reports(reports: Sequence[bytes]) -> Mapping[str, Unavailability]:
    """Return the agents that no worker can run; a report that cannot be read is one of a worker that can run all."""
    try:
        decoded = [
            {name: Unavailability(str(reason), bool(lacks)) for name, (reason, lacks) in orjson.loads(report).items()}
            for report in reports
        ]
    except (ValueError, TypeError, AttributeError):
        return {}
    if not decoded:
        return {}
    names = set(decoded[0]).intersection(*decoded[1:])
    return {name: _join([report[name] for report in decoded]) for name in sorted(names)}


def _join(reasons: Sequence[Unavailability]) -> Unavailability:
    texts = dict.fromkeys(why.reason for why in reasons)
    return Unavailability("; elsewhere: ".join(texts), all(why.lacks_settings for why in reasons))


def present_workers(client: Any) -> list[str]:
    """Return the names of the workers that are present, as ``host:pid``."""
    names: list[bytes] = client.zrangebyscore(_KEY, f"({client.time()[0]}", "+inf")
    return [name.decode() for name in names]


class WorkerPresence:
    """Renews the presence of this worker from a thread until it is stopped; if Redis is away it tries again."""

    def __init__(
        self,
        client: redis.Redis,
        name: str,
        unavailable: Mapping[str, Unavailability] = MappingProxyType({}),
        describe: Callable[[], WorkerInfo | None] = lambda: None,
    ) -> None:
        """``unavailable`` are the agents that the worker cannot run; ``describe`` returns its info at this moment."""
        self._redis = client
        self._name = name
        self._report = encode_report(unavailable)
        self._describe = describe
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="presence", daemon=True)

    def start(self) -> None:
        """Start the thread, which announces the worker and renews its presence."""
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread and remove the presence."""
        self._stop.set()
        self._thread.join(timeout=2)
        try:
            pipe = self._redis.pipeline(transaction=False)
            pipe.zrem(_KEY, self._name)
            pipe.hdel(_REPORTS_KEY, self._name)
            pipe.hdel(_ENTRIES_KEY, self._name)
            pipe.execute()
        except redis.RedisError as error:
            _log().info("Redis is away: the worker's presence is left to expire", reason=str(error))

    def _renew(self) -> None:
        announced: tuple[RunningSlot, ...] = ()
        due_at = -1.0
        may_change_at = -1.0  # after an error a change is no reason to ask Redis again at once
        while True:
            info, now = self._describe(), boottime_s()
            running = () if info is None else info.running
            if now >= due_at or (running != announced and now >= may_change_at):
                is_announced = self._announce(info)
                announced, due_at = running, now + PRESENCE_RENEW_EVERY_S
                may_change_at = now if is_announced else due_at
            if self._stop.wait(min(_LOOK_EVERY_S, max(due_at - boottime_s(), 0.0))):
                return

    def _announce(self, info: WorkerInfo | None) -> bool:
        entry = ("", "") if info is None else (info.pool, info.body)
        try:
            self._redis.eval(
                _ANNOUNCE, 3, _KEY, _REPORTS_KEY, _ENTRIES_KEY, self._name, str(TTL_S), self._report, *entry
            )
        except redis.RedisError as error:
            _log().warning("Redis is away: the worker's presence was not renewed", reason=str(error))
            drop_if_demoted(self._redis, error)
            return False
        return True


def _log() -> Any:
    import structlog  # here, because the health check of a container, which logs nothing, would be twice as slow

    return structlog.get_logger()
