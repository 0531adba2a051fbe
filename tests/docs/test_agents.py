"""The guide to agents leads from nothing to an agent that works, by its own words alone."""

from __future__ import annotations

import http.server
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs" / "agents.md").read_text(encoding="utf-8").partition("\n## The folder\n")[0]
FILE_OF_BLOCK = re.compile(
    r"`(my_agents/rates/[\w.]+)`[^`]*?(?:`[^`]+`[^`]*?)*?:\n\n```(?:json|python)\n(.*?)```", re.DOTALL
)
COMMAND = re.compile(r"^\.venv/bin/((?:bucketd agents|pytest) .*)$", re.MULTILINE)


@pytest.fixture
def provider(tmp_path: Path) -> Iterator[str]:
    """The service of step 2, on a free port."""
    [rates] = re.findall(r"echo '(\{.*\})' > provider/latest.json", GUIDE)
    (tmp_path / "provider").mkdir()
    (tmp_path / "provider" / "latest.json").write_text(rates)
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path / "provider"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_the_agent_of_the_guide_passes_each_of_its_commands(tmp_path: Path, provider: str) -> None:
    programs = Path(sys.executable).parent
    environ = {**os.environ, "RATES_URL": provider, "RATES_API_KEY": "k3y-1234"}
    commands = COMMAND.findall(GUIDE)
    assert [command.split()[:3] for command in commands] == [
        ["bucketd", "agents", "new"],
        ["bucketd", "agents", "check"],
        ["bucketd", "agents", "check"],
        ["bucketd", "agents", "run"],
        ["pytest", "my_agents"],
    ]
    outputs = []
    for number, command in enumerate(commands):
        if number == 2:
            blocks = dict(FILE_OF_BLOCK.findall(GUIDE))
            assert sorted(Path(name).name for name in blocks) == ["agent.py", "agent_spec.json", "test_rates.py"]
            for name, text in blocks.items():
                (tmp_path / name).write_text(text, encoding="utf-8")
        done = subprocess.run(
            ["sh", "-c", f"{programs}/{command}"],
            cwd=tmp_path,
            env=environ,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        assert "!" not in done.stderr, f"{command}: {done.stderr}"
        outputs.append(done.stdout)
    assert json.loads(outputs[3]) == {"amount": "21.60", "currency": "USD"}
    assert "2 passed" in outputs[4]
