"""What a process remembers of the hints that it gave."""

from __future__ import annotations

import math

from api.limits.hint_memory import HintMemory


def test_a_caller_is_due_a_little_before_its_hint_and_never_after_the_end() -> None:
    hints = HintMemory()
    assert hints.due_at_s(1) is None
    hints.remember(1, 100.0, 1_000)
    assert hints.due_at_s(1) == 100.9
    hints.remember(1, 101.0, None)
    assert hints.due_at_s(1) == math.inf


def test_the_oldest_hints_are_forgotten_by_number_and_by_age() -> None:
    hints = HintMemory(remembered_max=2, window_s=600)
    for key in range(1, 6):
        hints.remember(key, 0.0, 1_000)
    assert [hints.due_at_s(key) is not None for key in range(1, 6)] == [False, False, True, True, True]
    aged = HintMemory(window_s=600)
    aged.remember(1, 0.0, 1_000)
    aged.remember(2, 700.0, 1_000)
    assert aged.due_at_s(1) is not None
    aged.remember(3, 1_400.0, 1_000)
    assert aged.due_at_s(1) is None
