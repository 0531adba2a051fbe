"""Compares what callers know with the views in Redis, in one round trip: only what differs comes back.

Redis is asked for hundreds of views and looks at the first bytes of each; what has not changed costs a byte. The ids
go in one argument, not each as a key: packing 500 keys takes this process longer than all else, and no view lies in
another database.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import redis

from shared.live.view_trailer import TRAILER_BYTES_MAX, split_trailer
from shared.live.views import view_key

_MISSING, _SAME, _SAME_AND_DONE, _CHANGED, _OMITTED = b"?=.!+"

# All ids are of one length, so a basket's name begins at byte 61 of each view, and soon after it stands the revision.
# A view of a lower revision than the caller has seen counts as missing: no poll goes back.
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

local marks, views, taken, live = {}, {}, 0, 0
for id, rev in string.gmatch(ARGV[1], '(%S+) (%S+)') do
  local key = prefix .. id
  local head = redis.call('GETRANGE', key, 61, 240)
  local _, ends = string.find(head, '"done":', 1, true)
  local _, _, done, known = string.find(head, '^(%a+),"rev":(%d+)', (ends or -1) + 1)
  local mark = '?'
  if known == rev then
    mark = done == 'true' and '.' or '='
    if mark == '=' and live < live_max then
      local view = status_view(key, 2000)
      if view then
        live = live + 1
        views[#views + 1] = view
      else
        mark = '?'
      end
    end
  elseif known and (rev == '-' or tonumber(rev) < tonumber(known)) then
    mark = '!'
    local view
    if whole_max == 0 then
      view = status_view(key, 2000)
    else
      local size = redis.call('STRLEN', key)
      if taken > 0 and taken + size > whole_max then
        mark = '+'
      else
        taken = taken + size
        view = redis.call('GET', key)
      end
    end
    if view then views[#views + 1] = view elseif mark == '!' then mark = '?' end
  end
  marks[#marks + 1] = mark
end
return { table.concat(marks), views }
"""


@dataclass(frozen=True, slots=True)
class ViewComparison:
    """What Redis knows of those that were asked for: each is in one of these, but unchanged ones are only counted.

    ``changed`` and ``live`` are views; ``live`` are some of those that are unchanged and not done, for hints.
    ``left_out`` have changed too, but there were bytes enough.
    """

    missing: Sequence[str]
    changed: Sequence[bytes] = ()
    omitted: Sequence[str] = ()
    unchanged: int = 0
    live: Sequence[bytes] = ()


def compare_views(
    client: redis.Redis, revs: Mapping[str, int | None], *, whole_bytes: int, live_max: int
) -> ViewComparison:
    """Answer which of the views differ from the revisions ``asked`` about; raises RedisError.

    The views are status views, or with ``whole_bytes`` whole ones of so many bytes in all, one at least. ``live_max``
    bounds ``live``: the first so many in the order asked.
    """
    told = " ".join([f"{each} {'-' if rev is None else rev}" for each, rev in revs.items()])
    answered: Any = client.eval(_COMPARE, 0, told, view_key(""), str(whole_bytes), str(live_max), TRAILER_BYTES_MAX)
    marks, views = answered
    unchanged = marks.count(_SAME) + marks.count(_SAME_AND_DONE)
    if unchanged == len(marks):
        return ViewComparison((), unchanged=unchanged, live=[_status_view(piece) for piece in views])
    missing: list[str] = []
    left_out: list[str] = []
    changed: list[bytes] = []
    live: list[bytes] = []
    following = iter(views)
    for execution_id, mark in zip(revs, marks, strict=True):
        if mark == _CHANGED:
            changed.append(next(following) if whole_bytes else _status_view(next(following)))
        elif mark == _SAME and len(live) < live_max:
            live.append(_status_view(next(following)))
        elif mark == _MISSING:
            missing.append(execution_id)
        elif mark == _OMITTED:
            left_out.append(execution_id)
    return ViewComparison(missing, changed, left_out, unchanged, live)


def _status_view(piece: bytes) -> bytes:
    """The status view in a piece of a poll: what stands before the steps, and its mark at the poll's end."""
    end = piece[-TRAILER_BYTES_MAX:]
    shown, _ = split_trailer(end)
    return piece[:-TRAILER_BYTES_MAX] + end[len(shown) :]
