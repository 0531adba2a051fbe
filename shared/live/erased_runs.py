"""Erased runs in Redis: their copies are deleted, and a mark keeps what a slow process sends later from being read.

A worker may have recorded the end of a run and stand still before it publishes it. Its view then loses against the
newer one, its outputs are refused by the mark, and its log lines are left out by each reader of the log stream.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

import orjson
import redis

from shared.domain.execution import Execution
from shared.live.log_stream import LOG_STREAM_KEY, LOG_STREAM_TTL_S
from shared.live.views import RenderedView, ViewCache, copy_key, erased_key, output_key

_CHUNK: Final = 500
# Redis's clock may differ from MongoDB's, and a worker's last lines may come late.
_BEFORE: Final = timedelta(minutes=1)
_AFTER: Final = timedelta(minutes=10)


def erase_copies(client: redis.Redis, views: ViewCache, execution: Execution, view: bytes) -> None:
    """Delete what Redis has of the content of a run, and store ``view``, that of the erased run. Raises RedisError."""
    pipe = client.pipeline(transaction=False)
    pipe.set(erased_key(execution.id), 1, ex=LOG_STREAM_TTL_S)  # first: from here on no output is stored
    pipe.delete(
        copy_key(execution.id), *(output_key(execution.integrator, execution.id, step) for step in execution.steps)
    )
    views.put(pipe, [RenderedView(execution.integrator, execution.id, view, execution.rev, is_final=True)])
    pipe.execute()
    _delete_log_lines(client, execution)


def without_erased(client: redis.Redis, lines: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return those of the log lines that belong to no erased run. Raises RedisError."""
    ids = list({line["execution_id"] for line in lines})
    marks: Any = client.mget(map(erased_key, ids)) if ids else ()
    erased = {execution_id for execution_id, mark in zip(ids, marks, strict=True) if mark is not None}
    return [line for line in lines if line["execution_id"] not in erased] if erased else [*lines]


def _delete_log_lines(client: redis.Redis, execution: Execution) -> None:
    """Delete the entries of the stream with lines of this run that may have content.

    An entry cannot be changed, so lines of other runs in it go too; their polls still have them. The engine's own
    lines without an error have no content: such an entry stays, and readers leave its lines out.
    """
    pattern = orjson.dumps({"execution_id": execution.id})[1:-1]
    position: str = _milliseconds(execution.created_at - _BEFORE)
    end = _milliseconds((execution.finished_at or execution.created_at) + _AFTER)
    while True:
        chunk: Any = client.xrange(LOG_STREAM_KEY, min=position, max=end, count=_CHUNK)
        with_content = [entry for entry, fields in chunk if _has_content(fields[b"lines"], pattern, execution.id)]
        if with_content:
            client.xdel(LOG_STREAM_KEY, *with_content)
        if len(chunk) < _CHUNK:
            return
        position = f"({chunk[-1][0].decode()}"


def _has_content(entry: bytes, pattern: bytes, execution_id: str) -> bool:
    if pattern not in entry:
        return False
    lines: Iterable[dict[str, Any]] = orjson.loads(entry)
    return any(_may_have_content(line) for line in lines if line["execution_id"] == execution_id)


def _may_have_content(line: dict[str, Any]) -> bool:
    return bool(line["event"] == "agent.log" or line["level"] != "info")


def _milliseconds(at: datetime) -> str:
    return str(int(at.timestamp() * 1_000))
