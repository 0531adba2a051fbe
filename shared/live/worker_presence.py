"""Worker presence (liveness): each worker's main process renews an entry in Redis, and the API counts the entries.

Beside its entry a worker keeps a report of the agents that it cannot run. A worker without a report, such as one of an
older release, counts as one that can run all of them.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

import orjson
import redis

from shared.domain.definitions.unavailability import Unavailability
from shared.live.redis_client import drop_if_demoted

PRESENCE_RENEW_EVERY_S: Final = 5.0
PRESENCE_TTL_S: Final = 15.0
_KEY: Final = "workers"
# Under a prefix that the ACL of earlier releases grants: without the right to it no process would reach Redis at all.
_REPORTS_KEY: Final = "metrics:unavailable_agents"

# By Redis's own time: the entries of machines whose clocks differ must last equally long.
_ANNOUNCE: Final = """
local t = redis.call('TIME')
redis.call('ZADD', KEYS[1], t[1] + ARGV[2], ARGV[1])
if ARGV[3] == '' then
  redis.call('HDEL', KEYS[2], ARGV[1])
else
  redis.call('HSET', KEYS[2], ARGV[1], ARGV[3])
end
for _, gone in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', t[1])) do
  redis.call('HDEL', KEYS[2], gone)
end
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', t[1])
"""
# The workers of a fleet have mostly the same report, so each is sent once; none is of use if a worker has none.
_READ: Final = """
local present = redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. redis.call('TIME')[1], '+inf')
local reply = {#present}
local seen = {}
for _, name in ipairs(present) do
  local report = redis.call('HGET', KEYS[2], name)
  if not report then
    return {#present}
  end
  if not seen[report] then
    seen[report] = true
    reply[#reply + 1] = report
  end
end
return reply
"""


def read_presence(pipe: Any) -> Any:
    """Read the number of workers that are present, and their different reports, from a client or in a pipeline.

    The reply is a list. There are no reports if a worker has none: it can run every agent.
    """
    return pipe.eval(_READ, 2, _KEY, _REPORTS_KEY)


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
        self, client: redis.Redis, name: str, unavailable: Mapping[str, Unavailability] = MappingProxyType({})
    ) -> None:
        """``unavailable`` are the agents that the worker cannot run."""
        self._redis = client
        self._name = name
        self._report = encode_report(unavailable)
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
            self._redis.zrem(_KEY, self._name)
            self._redis.hdel(_REPORTS_KEY, self._name)
        except redis.RedisError as error:
            _log().info("Redis is away: the worker's presence is left to expire", reason=str(error))

    def _renew(self) -> None:
        while True:
            try:
                self._redis.eval(_ANNOUNCE, 2, _KEY, _REPORTS_KEY, self._name, str(int(PRESENCE_TTL_S)), self._report)
            except redis.RedisError as error:
                _log().warning("Redis is away: the worker's presence was not renewed", reason=str(error))
                drop_if_demoted(self._redis, error)
            if self._stop.wait(PRESENCE_RENEW_EVERY_S):
                return


def _log() -> Any:
    import structlog  # here, because the health check of a container, which logs nothing, would be twice as slow

    return structlog.get_logger()
