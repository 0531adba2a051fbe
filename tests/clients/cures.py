"""Runs the examples of docs/clients.md as they are written, each with a new run that takes some seconds."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import requests

from tests.clients.toolbox import CommandFailed, Toolbox

PAGE: Final = Path(__file__).parents[2] / "docs" / "clients.md"
BLOCK: Final = re.compile(r"^```(python|javascript)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# Longer than httpx's timeout, and longer than ky's.
RUN_S: Final = {"python": 6, "javascript": 11}
PYTHON_PRELUDE: Final = """\
import json, sys, backoff, hishel.httpx, httpx, polling2, requests, requests_cache, tenacity
from azure.core import PipelineClient
from azure.core.pipeline.policies import RequestIdPolicy, RetryPolicy
from azure.core.polling import LROPoller
from azure.core.polling.base_polling import LocationPolling, LROBasePolling
from azure.core.rest import HttpRequest
URL, run = sys.argv[1], json.loads(sys.argv[2])
"""
JAVASCRIPT_PRELUDE: Final = """\
import axios from "axios";
import ky from "ky";
const URL_ = process.argv[2], run = JSON.parse(process.argv[3]);
"""


def run_examples(toolbox: Toolbox, url: str) -> str:
    """Run each example; one that polls to the end must see the run completed, any other a body of this run."""
    blocks = BLOCK.findall(PAGE.read_text(encoding="utf-8"))
    for number, (language, block) in enumerate(blocks):
        folder = toolbox.folder(f"example-{number}")
        script = {"script": [f"queued:{RUN_S[language]}", "completed"]}
        body = {"basket_name": "simulate", "input_data": script}
        run = requests.post(f"{url}/run-basket", json=body, timeout=30)
        if language == "python":
            program = folder / "example.py"
            program.write_text(f"{PYTHON_PRELUDE}{block}\nprint('status', state['status'])\n")
            output = toolbox.run(toolbox.venv("cures") / "bin" / "python", program, url, run.text, cwd=folder)
        else:
            program = toolbox.node_modules("javascript").parent / f"example-{number}.mjs"
            program.write_text(f"{JAVASCRIPT_PRELUDE}{block}\nconsole.log('status', state.status);\n")
            output = toolbox.run_node(program, url, run.text, cwd=folder)
        expected = "queued" if "304" in block or "order-17" in block else "completed"
        if not output.endswith(f"status {expected}\n"):
            raise CommandFailed(f"{block}\n{output}")
    return f"{len(blocks)} examples of docs/clients.md"
