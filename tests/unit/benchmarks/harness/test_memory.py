"""The memory of a process includes that of everything below it, each page by its share."""

from __future__ import annotations

import os
from pathlib import Path

from benchmarks.harness.memory import pss_bytes


def add_process(proc: Path, pid: int, parent: int, pss_kb: int | None) -> None:
    folder = proc / str(pid)
    folder.mkdir(parents=True)
    (folder / "stat").write_text(f"{pid} (gunicorn: (master)) S {parent} 0 0\n")
    if pss_kb is not None:
        rollup = f"1000-2000 ---p 00000000 00:00 0  [rollup]\nRss: 900 kB\nPss: {pss_kb:>17} kB\nPss_Dirty: 800 kB\n"
        (folder / "smaps_rollup").write_text(rollup)


def test_children_and_their_children_count_and_no_other_process(tmp_path: Path) -> None:
    add_process(tmp_path, 10, 1, 100)
    add_process(tmp_path, 11, 10, 20)
    add_process(tmp_path, 12, 11, 3)
    add_process(tmp_path, 13, 1, 5_000)
    assert pss_bytes(10, tmp_path) == 123 * 1024


def test_a_process_that_has_ended_has_no_memory(tmp_path: Path) -> None:
    add_process(tmp_path, 10, 1, 100)
    add_process(tmp_path, 11, 10, None)
    assert pss_bytes(10, tmp_path) == 100 * 1024


def test_this_process_has_memory() -> None:
    assert pss_bytes(os.getpid()) > 1_000_000
