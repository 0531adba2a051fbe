"""Runs a failed test once more if the machine or MongoDB stood still meanwhile.

A store that gives no reply for most of a second is rightly answered with 503, and a machine that stands still outlasts
any deadline. Neither is a fault of the tested code. What is repeated, and why, stands in the report of the session.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

import pymongo
import pytest
from _pytest.runner import runtestprotocol
from pymongo.errors import PyMongoError

STALL_S: Final = 0.25
"""A longer pause may have made a deadline of 0.8 s pass: a call of MongoDB waits three times for a processor."""
_LOOK_EVERY_S: Final = 0.1
_PROPERTY: Final = "stall"


class StallWatch:
    """Threads that note each pause of a processor, and each reply of MongoDB that took long.

    A thread for each processor: one may stand still, with all that waits for it, while the others work.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stalls: list[tuple[float, float]] = []
        self._store: pymongo.MongoClient[dict[str, Any]] | None = None
        self._began: dict[str, float] = {}
        self._start("mongodb", self._ask_store)
        for processor in os.sched_getaffinity(0):
            self._start(f"processor-{processor}", lambda: None, processor)

    def watch_store(self, url: str | None) -> None:
        """Ask the MongoDB at ``url`` for a reply at each look, from now on; None ends that."""
        store = self._store
        self._store = None if url is None else pymongo.MongoClient(url, serverSelectionTimeoutMS=10_000)
        if store is not None:
            store.close()

    def longest_since(self, moment: float) -> float:
        """Return the seconds of the longest pause that ended after ``moment`` (monotonic seconds), or goes on."""
        with self._lock:
            now = time.monotonic()
            present = (now - began - _LOOK_EVERY_S for began in self._began.values())
            return max([*present, *(seconds for ended, seconds in self._stalls if ended > moment)])

    def _start(self, name: str, look: Callable[[], None], processor: int | None = None) -> None:
        self._began[name] = time.monotonic()
        threading.Thread(target=self._watch, args=(name, look, processor), name=f"stall-{name}", daemon=True).start()

    def _ask_store(self) -> None:
        store = self._store
        with suppress(PyMongoError, RuntimeError):  # it has just been closed or stopped
            if store is not None:
                store.admin.command("ping")

    def _watch(self, name: str, look: Callable[[], None], processor: int | None) -> None:
        if processor is not None:
            os.sched_setaffinity(0, {processor})  # of this thread alone
        while True:
            time.sleep(_LOOK_EVERY_S)
            look()
            with self._lock:
                now = time.monotonic()
                seconds = now - self._began[name] - _LOOK_EVERY_S
                self._began[name] = now
                if seconds > STALL_S:
                    self._stalls.append((now, seconds))


class RepeatAfterStall:
    """The plugin: it runs each test, and once more if it failed during a stall."""

    def __init__(self) -> None:
        self.watch = StallWatch()

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item, nextitem: pytest.Item | None) -> bool:
        """Run ``item`` as pytest does, and report its last attempt."""
        item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
        began = time.monotonic()
        reports = runtestprotocol(item, log=False, nextitem=nextitem)
        stall_s = self.watch.longest_since(began)
        if stall_s > STALL_S and any(report.failed for report in reports):
            item._initrequest()  # type: ignore[attr-defined]  # pytest has no public name for it
            reports = runtestprotocol(item, log=False, nextitem=nextitem)
            line = f"run twice, because the machine or MongoDB stood still for {stall_s:.1f} s"
            reports[-1].user_properties.append((_PROPERTY, line))
        for report in reports:
            item.ihook.pytest_runtest_logreport(report=report)
        item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
        return True

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Name each test that was run twice."""
        for reports in terminalreporter.stats.values():
            for report in reports:
                for name, line in getattr(report, "user_properties", ()):
                    if name == _PROPERTY:
                        terminalreporter.write_line(f"{report.nodeid}: {line}")
