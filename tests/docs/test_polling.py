"""The programs of the guides, run on a real stack as they are written, except for the address."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from tests.docs.programs import ADDRESS, FOUND, PROGRAMS, UNTRIED, Program
from tests.stack import Stack

NAMED = re.compile(r'"(finance_daily_check|working_test|simulate|cashflow_analyzer|workflow_optimizer)"')
# A program with an idempotency key must also work when it is run again, when its run may be over.
KEY = re.compile(r"idempotency.key", re.IGNORECASE)


def test_each_program_is_tried() -> None:
    assert len(PROGRAMS) == len([kind for page, kind, _ in FOUND if (page, kind) not in UNTRIED])


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.name)
def test_a_program_does_what_its_page_says_when_it_is_run_again_too(
    stack: Stack, tmp_path: Path, program: Program
) -> None:
    assert ADDRESS in program.text
    for _ in range(2 if KEY.search(program.text) else 1):
        program.check(program.start(tmp_path, stack.url))


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.name)
def test_a_program_that_is_refused_ends_and_shows_why(stack: Stack, tmp_path: Path, program: Program) -> None:
    refused = replace(program, text=NAMED.sub('"nobody"', program.text))
    output, errors = refused.start(tmp_path, stack.url).communicate(timeout=20)
    # A program with a key is refused for its other body if the test before this one has sent the key.
    assert re.search("was not found|was used with another body", output + errors)
