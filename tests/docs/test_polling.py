"""The programs of the guides, run on a real stack as they are written, except for the address."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.stack import Stack

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
ADDRESS = "http://localhost:8000"
NAMED = re.compile(r'"(finance_daily_check|working_test|simulate|cashflow_analyzer)"')
# A program with an idempotency key must also work when it is run again, when its run may be over.
KEY = re.compile(r"idempotency.key", re.IGNORECASE)
ENDED = r"completed \{'recommendations': \['Increase savings'\]\}\n"
SAVE, REDUCE = (rf'"recommendations":\["{advice}"\]' for advice in ("Increase savings", "Reduce expenses"))
# What each program prints, in the order of the page.
SAYS = {
    "docs/polling.md": {
        "sh": [r'"status":"completed".*"result":\{"recommendations":\["Increase savings"\]\}'],
        "python": [
            ENDED,
            ENDED,
            r"\d{10}_[0-9a-f]{16}\n",
            r"1 execution\.accepted .*\n(.*\n)*\d+ execution\.completed .*\n",
            r"20 \{'completed'\}\n",
            r"done\n",
        ],
        "javascript": [r'completed \{"recommendations":\["Increase savings"\]\}\n'],
    },
    "docs/baskets.md": {"sh": [rf'"result":\{{"advice":\{{{SAVE}\}},"goal_recommender":\{{{REDUCE}\}}\}}']},
}
UNTRIED = {("docs/baskets.md", "json")}
FOUND = [(page, kind, text) for page in SAYS for kind, text in BLOCK.findall((ROOT / page).read_text("utf-8"))]
PROGRAMS = [
    pytest.param(language, program, line, id=f"{page}-{language}-{place}")
    for page, languages in SAYS.items()
    for language, lines in languages.items()
    for place, (program, line) in enumerate(
        zip([text for where, kind, text in FOUND if (where, kind) == (page, language)], lines, strict=True), 1
    )
]


def test_each_program_is_tried() -> None:
    assert len(PROGRAMS) == len([kind for page, kind, _ in FOUND if (page, kind) not in UNTRIED])


@pytest.mark.parametrize(("language", "program", "says"), PROGRAMS)
def test_a_program_does_what_its_page_says_when_it_is_run_again_too(
    stack: Stack, tmp_path: Path, language: str, program: str, says: str
) -> None:
    assert ADDRESS in program
    for _ in range(2 if KEY.search(program) else 1):
        ended = _run(tmp_path, language, program.replace(ADDRESS, stack.url))
        assert ended.returncode == 0, ended.stderr
        assert re.fullmatch(rf"(?s:.*?){says}(?s:.*)", ended.stdout), ended.stdout


@pytest.mark.parametrize(("language", "program"), [pytest.param(*one.values[:2], id=one.id) for one in PROGRAMS])
def test_a_program_that_is_refused_ends_and_shows_why(
    stack: Stack, tmp_path: Path, language: str, program: str
) -> None:
    ended = _run(tmp_path, language, NAMED.sub('"nobody"', program.replace(ADDRESS, stack.url)))
    # A program with a key is refused for its other body if the test before this one has sent the key.
    assert re.search("was not found|was used with another body", ended.stdout + ended.stderr)


def _run(directory: Path, language: str, program: str) -> subprocess.CompletedProcess[str]:
    started = [*_interpreter(language), _file(directory, language, program)]
    return subprocess.run(started, capture_output=True, text=True, timeout=20, check=False)


def _interpreter(language: str) -> list[str]:
    if language == "python":
        return [sys.executable]
    found = shutil.which({"sh": "sh", "javascript": "node"}[language])
    if found is None:
        pytest.skip(f"there is no interpreter for {language} here")
    return [found]


def _file(directory: Path, language: str, program: str) -> str:
    file = directory / f"program.{ {'sh': 'sh', 'python': 'py', 'javascript': 'mjs'}[language] }"
    file.write_text(program, encoding="utf-8")
    return str(file)
