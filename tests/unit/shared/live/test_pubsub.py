"""Whoever finds no thread to listen with is told so, and spoils it for nobody."""

from __future__ import annotations

import threading

import pytest

from shared.live.pubsub import WakeupListener


def test_a_machine_without_a_thread_left_holds_nobody_and_the_next_one_tries_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begun: list[str] = []

    def start(self: threading.Thread) -> None:
        begun.append(self.name)
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    wakes = WakeupListener("redis://127.0.0.1:1", lambda: False)
    for _ in range(2):
        with wakes.register("topic") as waiter:
            assert waiter is None
    assert begun == ["wakes", "wakes"]
    assert not wakes._waiters
