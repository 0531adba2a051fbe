"""Circuit breaker, rate limit and retry budget of each provider in Redis, shared by all workers.

One script before a call and one after it. A circuit is closed, open, or half-open: once its cool-down is over, one call
of all workers is the probe, whose success closes the circuit. A probe whose worker died holds the place for its lease.
The time is Redis's own. The same rules in memory: ``worker/gateway/local_breaker.py``.
"""

from __future__ import annotations

import secrets
from typing import Any, Final

import redis

from shared.live.providers.call_policy import CallPermit, CallPolicy, CallReport, Verdict
from shared.live.providers.provider_metrics import METRICS_KEY, call_increments, error_field
from shared.live.providers.provider_states import STATES_KEY

_PREFIX: Final = "provider:"
_TTL_MS: Final = 2 * 86_400_000

# What both scripts begin with. KEYS: the provider's hash, the hash of all states, the metrics. The state of a provider
# is "<open until> <critical until> <seen at>", in milliseconds; 0 if its circuit is closed.
_COMMON: Final = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local function publish(open_until, critical_until)
  redis.call('HSET', KEYS[2], ARGV[1], open_until .. ' ' .. critical_until .. ' ' .. now)
end
"""
# ARGV: provider, critical (0 or 1), token, lease in ms, ms between two calls (0: no limit), ms of burst, longest wait
# for a slot in ms, metric fields of the two refusals, lifetime in ms, longest cool-down in ms. The rate limit is a
# GCRA: `slot` is the theoretical time of arrival, after which the whole burst is free again. What lies further ahead
# than it can was written before the clock went back (a failover to a server that is behind): it counts as over.
_ADMIT: Final = f"""{_COMMON}
local stored = redis.call('HMGET', KEYS[1], 'open_until', 'probe_until', 'slot', 'seen_at', 'critical_until')
local open_until = tonumber(stored[1])
if open_until then
  if open_until - now > tonumber(ARGV[11]) then open_until = now end
  local wait = math.max(open_until, tonumber(stored[2] or 0)) - now
  if wait > 0 then
    redis.call('HINCRBYFLOAT', KEYS[3], ARGV[8], 1)
    return {{'circuit_open', wait, ''}}
  end
end
local wait, interval = 0, tonumber(ARGV[5])
if interval > 0 then
  local slot = math.max(tonumber(stored[3] or 0), now)
  if slot - now > ARGV[6] + ARGV[7] + 1 then slot = now end
  slot = slot + interval
  wait = math.max(math.ceil(slot - now - tonumber(ARGV[6])), 0)
  if wait > tonumber(ARGV[7]) then
    redis.call('HINCRBYFLOAT', KEYS[3], ARGV[9], 1)
    return {{'rate_limit_local', wait, ''}}
  end
  redis.call('HSET', KEYS[1], 'slot', string.format('%.3f', slot))
end
local critical_until = tonumber(stored[5] or 0)
local is_new = now - tonumber(stored[4] or 0) > 60000
if ARGV[2] == '1' and critical_until - now < 82800000 then
  critical_until, is_new = now + 86400000, true
end
if is_new then
  redis.call('HSET', KEYS[1], 'seen_at', now, 'critical_until', critical_until)
  redis.call('PEXPIRE', KEYS[1], ARGV[10])
  publish(open_until or 0, critical_until)
end
if not open_until then return {{'', wait, ''}} end
redis.call('HSET', KEYS[1], 'probe', ARGV[3], 'probe_until', now + wait + tonumber(ARGV[4]))
return {{'', wait, ARGV[3]}}
"""
# ARGV: provider, critical (0 or 1), token, outcome, repeat (0 or 1), wants a repeat (0 or 1), window in ms, failures in
# a row, calls at least, error rate, timeout rate, cool-down and its maximum in ms, ratio of repeats, repeats at least;
# then a metric field and its increment, any number of times. The counters of a window are, in one text: calls,
# failures, timeouts, first attempts of other and of critical calls, repeats of other and of critical calls.
_RECORD: Final = f"""{_COMMON}
for at = 16, #ARGV, 2 do redis.call('HINCRBYFLOAT', KEYS[3], ARGV[at], ARGV[at + 1]) end
local names = {{'open_until', 'trips', 'probe', 'critical_until', 'failures', 'window', 'current', 'previous'}}
local stored = redis.call('HMGET', KEYS[1], unpack(names))
local outcome, critical_until = ARGV[4], stored[4] or '0'
local function open(trips)
  local cooldown = math.min(tonumber(ARGV[12]) * 2 ^ (math.min(trips, 30) - 1), tonumber(ARGV[13]))
  redis.call('HSET', KEYS[1], 'open_until', now + cooldown, 'trips', trips)
  publish(now + cooldown, critical_until)
  return {{0, 'opened'}}
end
if stored[1] then
  if ARGV[3] == '' or ARGV[3] ~= stored[3] then return {{0, ''}} end
  redis.call('HDEL', KEYS[1], 'probe', 'probe_until')
  if outcome == 'abandoned' then return {{0, ''}} end
  if outcome ~= 'ok' then return open(tonumber(stored[2] or 0) + 1) end
  redis.call('HDEL', KEYS[1], 'open_until', 'trips', 'failures', 'window', 'current', 'previous')
  publish(0, critical_until)
  return {{0, 'closed'}}
end
if outcome == 'abandoned' then return {{0, ''}} end

local length = tonumber(ARGV[7])
local window = math.floor(now / length)
local weight = 1 - (now % length) / length
local function parse(text)
  local counts = {{}}
  for count in string.gmatch(text or '', '%S+') do counts[#counts + 1] = tonumber(count) end
  for at = #counts + 1, 7 do counts[at] = 0 end
  return counts
end
local last = tonumber(stored[6] or 0)
local current = parse(window == last and stored[7])
local previous = parse(window == last and stored[8] or window == last + 1 and stored[7])
local function count(at) return current[at] + previous[at] * weight end
local function add(at) current[at] = current[at] + 1 end
local function save(failures)
  redis.call('HSET', KEYS[1], 'window', window, 'failures', failures, 'current', table.concat(current, ' '),
    'previous', table.concat(previous, ' '))
end

local critical = tonumber(ARGV[2])
add(1)
if ARGV[5] == '0' then add(4 + critical) end
if outcome == 'ok' then
  save(0)
  return {{0, ''}}
end
add(2)
if outcome == 'timeout' then add(3) end
local failures, calls = tonumber(stored[5] or 0) + 1, count(1)
local may_retry = 0
local is_bad = calls >= tonumber(ARGV[9])
  and (count(2) >= tonumber(ARGV[10]) * calls or count(3) >= tonumber(ARGV[11]) * calls)
if failures >= tonumber(ARGV[8]) or is_bad then
  save(failures)
  return open(1)
end
local retries_max = math.max(tonumber(ARGV[15]), tonumber(ARGV[14]) * count(4 + critical))
if ARGV[6] == '1' and count(6 + critical) + 1 <= retries_max then
  add(6 + critical)
  may_retry = 1
end
save(failures)
return {{may_retry, ''}}
"""


class SharedBreaker:
    """Admits calls and learns from their outcomes, together with all workers; methods raise RedisError."""

    def __init__(self, client: redis.Redis, policy: CallPolicy) -> None:
        self._policy = policy
        self._redis = client
        self._admit = client.register_script(_ADMIT)
        self._record = client.register_script(_RECORD)

    def admit(self, provider: str, *, lease_s: float, is_critical: bool = False) -> CallPermit:
        """Return whether a call may be made now; a probe must be reported within ``lease_s``, or another follows."""
        rate = self._policy.rate
        interval_ms = 0.0 if rate is None else 1_000 / rate
        refusal, wait_ms, probe = self._admit(
            keys=_keys(provider),
            args=[
                provider, int(is_critical), secrets.token_hex(8), _ms(lease_s), interval_ms, max(interval_ms, 1_000),
                _ms(self._policy.slot_wait_max_s), error_field(provider, "circuit_open"),
                error_field(provider, "rate_limit_local"), _TTL_MS, _ms(self._policy.cooldown_max_s),
            ],
        )  # fmt: skip
        return CallPermit(refusal.decode(), wait_ms / 1_000, probe.decode())

    def open_for_s(self, provider: str) -> float:
        """Return for how long no call may be made, as far as is known; 0 if one may."""
        pipe = self._redis.pipeline(transaction=False)
        pipe.hmget(_PREFIX + provider, "open_until", "probe_until")
        pipe.time()
        (open_until, probe_until), (seconds, microseconds) = pipe.execute()
        if open_until is None:
            return 0.0
        now_s = float(seconds) + float(microseconds) / 1_000_000
        open_s, probe_s = (float(until_ms or 0) / 1_000 - now_s for until_ms in (open_until, probe_until))
        return max(open_s if open_s <= self._policy.cooldown_max_s else 0.0, probe_s, 0.0)

    def record(self, report: CallReport, seconds: float = 0.0, kind: str = "") -> Verdict:
        """Learn from an admitted call, which took ``seconds`` and failed in the way ``kind``, or not."""
        policy = self._policy
        increments: list[Any] = []
        for field, increment in call_increments(report, seconds, kind):
            increments += (field, increment)
        may_retry, change = self._record(
            keys=_keys(report.provider),
            args=[
                report.provider, int(report.is_critical), report.probe, report.outcome, int(report.is_repeat),
                int(report.wants_retry), _ms(policy.window_s), policy.failures_max, policy.calls_min,
                policy.error_rate, policy.timeout_rate, _ms(policy.cooldown_s), _ms(policy.cooldown_max_s),
                policy.retry_ratio, policy.retries_min, *increments,
            ],
        )  # fmt: skip
        return Verdict(bool(may_retry), change.decode())


def _keys(provider: str) -> list[str]:
    return [_PREFIX + provider, STATES_KEY, METRICS_KEY]


def _ms(seconds: float) -> int:
    return int(seconds * 1_000)
