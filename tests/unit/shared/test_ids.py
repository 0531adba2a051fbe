"""Tokens are random and never given out twice, also not by a child process."""

from __future__ import annotations

import multiprocessing
import re

from shared.ids import new_token


def test_tokens_are_unique_and_have_64_bits() -> None:
    tokens = [new_token() for _ in range(2_000)]
    assert len(set(tokens)) == len(tokens)
    assert all(re.fullmatch(r"[0-9a-f]{16}", token) for token in tokens)


def test_a_child_process_gives_out_other_tokens() -> None:
    new_token()  # so that some are at hand when the child is made
    fork = multiprocessing.get_context("fork")
    pipe, childs = fork.Pipe()
    child = fork.Process(target=lambda: childs.send([new_token() for _ in range(100)]))
    child.start()
    assert pipe.poll(10)
    of_child = set(pipe.recv())
    child.join(10)
    assert not of_child & {new_token() for _ in range(300)}
