"""The programs of the guide to polling, each run as it is written but for the address, against a real stack."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.stack import Stack

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "polling.md"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
ADDRESS = "http://localhost:8000"
# What each program prints, in the order of the guide.
SAYS = {
    "sh": [r'"status":"completed".*"result":\{"recommendations":\["Increase savings"\]\}'],
    "python": [
        r"completed \{'recommendations': \['Increase savings'\]\}\n",
        r"1 execution\.accepted .*\n(.*\n)*\d+ execution\.completed .*\n",
        r"20 \{'completed'\}\n",
        r"done\n",
    ],
    "javascript": [r'completed \{"recommendations":\["Increase savings"\]\}\n'],
}
PROGRAMS = [
    pytest.param(language, program, SAYS[language][place], id=f"{language}-{place + 1}")
    for language in SAYS
    for place, program in enumerate(text for kind, text in BLOCK.findall(GUIDE.read_text("utf-8")) if kind == language)
]


def test_each_program_of_the_guide_is_tried() -> None:
    assert len(PROGRAMS) == sum(map(len, SAYS.values())) == len(BLOCK.findall(GUIDE.read_text("utf-8")))


@pytest.mark.parametrize(("language", "program", "says"), PROGRAMS)
def test_a_program_of_the_guide_does_what_it_says(
    stack: Stack, tmp_path: Path, language: str, program: str, says: str
) -> None:
    assert ADDRESS in program
    written = program.replace(ADDRESS, stack.url)
    ended = subprocess.run(
        [*_interpreter(language), _file(tmp_path, language, written)],
        capture_output=True, text=True, timeout=40, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert re.fullmatch(rf"(?s:.*?){says}(?s:.*)", ended.stdout), ended.stdout


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
