"""The log stream of the last day in Redis: pages by cursor without gaps or duplicates, and the latest lines."""

from __future__ import annotations

from typing import Any

import orjson
import redis

from shared.live import log_stream
from shared.live.log_stream import LogCursor, LogFilter, LogStreamPage


def line(seq: int, **changes: Any) -> bytes:
    return orjson.dumps({"seq": seq, "agent_name": "a", "level": "info", "execution_id": "run", **changes})


def add(client: redis.Redis, *batches: list[bytes]) -> None:
    for batch in batches:
        pipe = client.pipeline(transaction=False)
        log_stream.append_lines(pipe, "acme", batch)
        pipe.execute()


def seqs(page: LogStreamPage) -> list[int]:
    return [line["seq"] for line in page.lines]


def test_pages_by_cursor_return_each_line_once_even_from_the_middle_of_an_entry(client: redis.Redis) -> None:
    add(client, [line(1), line(2), line(3)], [line(4)], [], [line(5), line(6)])
    since, pages = LogCursor(0, 0, 0), []
    while (page := log_stream.read_after(client, since, LogFilter(None), 2)).lines:
        pages.append(seqs(page))
        since = page.next_cursor
    assert pages == [[1, 2], [3, 4], [5, 6]]
    add(client, [line(7)])
    assert seqs(log_stream.read_after(client, since, LogFilter(None), 2)) == [7]


def test_the_latest_lines_are_the_newest_in_order(client: redis.Redis) -> None:
    add(client, *([line(number)] for number in range(1, 1_201)))
    assert seqs(log_stream.read_latest(client, LogFilter(None), 3)) == [1198, 1199, 1200]
    assert seqs(log_stream.read_latest(client, LogFilter(None), 1_100)) == [*range(101, 1_201)]


def test_a_filter_finds_only_matching_lines_however_rare(client: redis.Redis) -> None:
    add(client, [line(1, agent_name="rare", level="error")], *([line(number)] for number in range(2, 1_100)))
    assert seqs(log_stream.read_latest(client, LogFilter(None, agent="rare"), 5)) == [1]
    assert seqs(log_stream.read_after(client, LogCursor(0, 0, 0), LogFilter(None, level="error"), 5)) == [1]
    assert seqs(log_stream.read_latest(client, LogFilter(None, execution_id="other"), 5)) == []


def test_newer_lines_come_after_the_cursor_of_the_latest(client: redis.Redis) -> None:
    nothing = log_stream.read_latest(client, LogFilter(None), 5)
    add(client, [line(1)])
    assert seqs(log_stream.read_after(client, nothing.next_cursor, LogFilter(None), 5)) == [1]
    page = log_stream.read_latest(client, LogFilter(None), 5)
    add(client, [line(2)])
    assert seqs(log_stream.read_after(client, page.next_cursor, LogFilter(None), 5)) == [2]


def test_a_cursor_decodes_what_it_encoded_and_nothing_else() -> None:
    assert LogCursor.parse(str(LogCursor(1763700000000, 4, 2))) == LogCursor(1763700000000, 4, 2)
    for nonsense in ("", "1-2", "a-b-c", "1-2-3-4", "-1-2-3", "٣-1-1", "9" * 30 + "-1-1"):
        assert LogCursor.parse(nonsense) is None


def test_lines_older_than_a_day_are_trimmed_and_their_cursors_are_not_contained(client: redis.Redis) -> None:
    for number in range(150):  # trimmed by whole nodes of about a hundred entries
        client.xadd(log_stream.LOG_STREAM_KEY, {"lines": b"[" + line(number) + b"]"}, id=f"{1_000 + number}-0")
    add(client, [line(200)])
    assert log_stream.contains(client, LogCursor(1_000, 0, 1))
    pipe = client.pipeline(transaction=False)
    log_stream.trim_stream(pipe)
    pipe.execute()
    assert not log_stream.contains(client, LogCursor(1_000, 0, 1))
    assert seqs(log_stream.read_latest(client, LogFilter(None), 1)) == [200]
