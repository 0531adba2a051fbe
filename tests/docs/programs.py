"""The programs of the guides, as they are written, with what each prints; started on a real stack by its address."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).resolve().parents[2]
BLOCK: Final = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
ADDRESS: Final = "http://localhost:8000"
# The parts of the programs' idempotency keys that a test replaces to get new runs.
KEYS: Final = re.compile(r"2026-11-21|batch-1-")
ENDED: Final = r"completed \{'recommendations': \['Increase savings'\]\}\n"
SAVE, REDUCE = (rf'"recommendations":\["{advice}"\]' for advice in ("Increase savings", "Reduce expenses"))
# What each program prints, in the order of the page.
SAYS: Final = {
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
    "docs/integrating.md": {
        "python": [
            ENDED,
            r"ended: completed\n",
            r"\['completed', 'completed', 'completed'\]\n",
            r"15 105\n",
            r"True completed\n",
            r"completed saved: True sent: False\n.*not take.*\nResendReport\(sent=0, failed=1, .*\)\n# HELP",
        ]
    },
    "docs/baskets.md": {"sh": [rf'"result":\{{"advice":\{{{SAVE}\}},"goal_recommender":\{{{REDUCE}\}}\}}']},
    "docs/catalogue.md": {"sh": [r'"result":\{"plan":\[.*"id":"build",.*"part":3,"parts":3\}\],"unplaced":\[\]']},
}
UNTRIED: Final = {("docs/baskets.md", "json"), ("docs/integrating.md", "console"), ("docs/integrating.md", "toml")}
FOUND: Final = [(page, kind, text) for page in SAYS for kind, text in BLOCK.findall((ROOT / page).read_text("utf-8"))]


@dataclass(frozen=True, slots=True)
class Program:
    """One program of a page, and a pattern of its output."""

    name: str
    language: str
    text: str
    says: str

    @property
    def runs(self) -> int:
        """Return how many executions the program makes."""
        several = re.search(r"range\((\d+)\)", self.text)
        return int(several[1]) if several else 1

    def start(self, directory: Path, url: str, *, key: str = "2026-11-21") -> subprocess.Popen[str]:
        """Start it on the server at ``url``, with ``key`` in its idempotency keys; skips without an interpreter."""
        text = KEYS.sub(lambda found: key if found[0][0] == "2" else f"{key}-", self.text.replace(ADDRESS, url))
        interpreter = {"sh": shutil.which("sh"), "javascript": shutil.which("node"), "python": sys.executable}
        if interpreter[self.language] is None:
            pytest.skip(f"there is no interpreter for {self.language} here")
        file = directory / f"program.{ {'sh': 'sh', 'python': 'py', 'javascript': 'mjs'}[self.language] }"
        directory.mkdir(exist_ok=True)
        file.write_text(text, encoding="utf-8")
        command = [interpreter[self.language] or "", str(file)]
        environment = os.environ | {"BHIV_CORE_URL": "http://127.0.0.1:9/core"}  # nothing listens there
        return subprocess.Popen(
            command, cwd=directory, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def check(self, process: subprocess.Popen[str], within_s: float = 20.0) -> None:
        """Wait for the end of a started program, and check that it succeeded and printed what its page says."""
        output, errors = process.communicate(timeout=within_s)
        assert process.returncode == 0, f"{self.name}: {errors}"
        assert re.fullmatch(rf"(?s:.*?){self.says}(?s:.*)", output), f"{self.name}: {output} {errors}"


PROGRAMS: Final = [
    Program(f"{page}-{language}-{place}", language, text, line)
    for page, languages in SAYS.items()
    for language, lines in languages.items()
    for place, (text, line) in enumerate(
        zip([text for where, kind, text in FOUND if (where, kind) == (page, language)], lines, strict=True), 1
    )
]
