"""Pub/sub: if the listener's thread cannot start, the caller gets no waiter, and later callers are not affected."""

from __future__ import annotations

import threading

import pytest

from shared.live.signals.pubsub import WakeupListener


def test_if_no_thread_can_start_no_poll_is_held_and_the_next_one_tries_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begun: list[str] = []

    def start(self: threading.Thread) -> None:
        begun.append(self.name)
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    listener = WakeupListener("redis://127.0.0.1:1", lambda: False)
    for _ in range(2):
        with listener.register("topic") as waiter:
            assert waiter is None
    assert begun == ["pubsub", "pubsub"]
    assert not listener._waiters
