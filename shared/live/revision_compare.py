"""Batch poll: compares the revisions that a caller has with the views in Redis, in one round trip.

A script reads the first bytes of hundreds of views and returns only those that differ; an unchanged one costs a byte.
The ids are one argument and not keys: packing 500 keys takes this process longer than all the rest, and all views are
in one database.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import redis

from shared.live.view_trailer import TRAILER_BYTES_MAX, split_trailer
from shared.live.views import view_key_prefix

_MISSING, _SAME, _SAME_AND_DONE, _CHANGED, _OMITTED = b"?=.!+"

# All ids have the same length, so the basket's name begins at byte 61 of each view, and the revision soon after it.
# A view with a lower revision than the caller has seen counts as missing: polls never go back.
_COMPARE: Final = """
local prefix, whole_max, live_max, tail_size = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])

local function status_view(key, size)
  local head = redis.call('GETRANGE', key, 0, size)
  local steps = string.find(head, ',"steps":[', 1, true)
  if not steps then
    return size > 0 and status_view(key, -1) or nil
  end
  return string.sub(head, 1, steps - 1) .. redis.call('GETRANGE', key, -tail_size, -1)
end

local outcomes, views, whole_size, live = {}, {}, 0, 0
for id, rev in string.gmatch(ARGV[1], '(%S+) (%S+)') do
  local key = prefix .. id
  local head = redis.call('GETRANGE', key, 61, 240)
  local _, ends = string.find(head, '"done":', 1, true)
  local _, _, done, stored_rev = string.find(head, '^(%a+),"rev":(%d+)', (ends or -1) + 1)
  local outcome = '?'
  if stored_rev == rev then
    outcome = done == 'true' and '.' or '='
    if outcome == '=' and live < live_max then
      local view = status_view(key, 2000)
      if view then
        live = live + 1
        views[#views + 1] = view
      else
        outcome = '?'
      end
    end
  elseif stored_rev and (rev == '-' or tonumber(rev) < tonumber(stored_rev)) then
    outcome = '!'
    local view
    if whole_max == 0 then
      view = status_view(key, 2000)
    else
      local size = redis.call('STRLEN', key)
      if whole_size > 0 and whole_size + size > whole_max then
        outcome = '+'
      else
        whole_size = whole_size + size
        view = redis.call('GET', key)
      end
    end
    if view then views[#views + 1] = view elseif outcome == '!' then outcome = '?' end
  end
  outcomes[#outcomes + 1] = outcome
end
return { table.concat(outcomes), views }
"""


@dataclass(frozen=True, slots=True)
class ViewComparison:
    """The result of a comparison: each execution is in one of the groups; unchanged ones are only counted.

    ``changed`` and ``live`` are views; ``live`` are some of those that are unchanged and not done, for hints.
    ``omitted`` have changed too, but the limit of bytes was reached.
    """

    missing: Sequence[str]
    changed: Sequence[bytes] = ()
    omitted: Sequence[str] = ()
    unchanged: int = 0
    live: Sequence[bytes] = ()


def compare_views(
    client: redis.Redis, integrator: str, revs: Mapping[str, int | None], *, whole_bytes: int, live_max: int
) -> ViewComparison:
    """Return which views of an integrator differ from ``revs``, the revision of each execution (None: not known).

    A run of another integrator counts as missing. Raises RedisError.

    The views are status views; or, if ``whole_bytes`` is not 0, whole views with at most that many bytes in total, but
    at least one. ``live`` holds at most ``live_max`` views, the first in the order of ``revs``.
    """
    request = " ".join([f"{execution_id} {'-' if rev is None else rev}" for execution_id, rev in revs.items()])
    prefix = view_key_prefix(integrator)
    reply: Any = client.eval(_COMPARE, 0, request, prefix, str(whole_bytes), str(live_max), TRAILER_BYTES_MAX)
    outcomes, views = reply
    unchanged = outcomes.count(_SAME) + outcomes.count(_SAME_AND_DONE)
    if unchanged == len(outcomes):
        return ViewComparison((), unchanged=unchanged, live=[_status_view(piece) for piece in views])
    missing: list[str] = []
    omitted: list[str] = []
    changed: list[bytes] = []
    live: list[bytes] = []
    remaining = iter(views)
    for execution_id, outcome in zip(revs, outcomes, strict=True):
        if outcome == _CHANGED:
            changed.append(next(remaining) if whole_bytes else _status_view(next(remaining)))
        elif outcome == _SAME and len(live) < live_max:
            live.append(_status_view(next(remaining)))
        elif outcome == _MISSING:
            missing.append(execution_id)
        elif outcome == _OMITTED:
            omitted.append(execution_id)
    return ViewComparison(missing, changed, omitted, unchanged, live)


def _status_view(piece: bytes) -> bytes:
    """Build a status view from a piece of a view: the fields before the steps, and the trailer."""
    end = piece[-TRAILER_BYTES_MAX:]
    body_end, _ = split_trailer(end)
    return piece[:-TRAILER_BYTES_MAX] + end[len(body_end) :]
