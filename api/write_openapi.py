"""``python -m api.write_openapi docs/openapi.json`` writes the OpenAPI document; ``--check`` only compares it.

The texts of ``/problems/<code>`` come from the page docs/errors.md, which is no part of the package, so they are copied
into it in the same way.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import click

from api.app import create_app
from api.openapi.problem_texts import PROBLEM_TEXTS_FILE
from shared.bootstrap import bootstrap
from shared.settings import Settings
from shared.telemetry.logging_setup import configure_logging

_ERRORS_PAGE: Final = Path(__file__).parents[1] / "docs" / "errors.md"
_ROW: Final = re.compile(r"^\|(?: (\d{3}) \|)? `((?!error_code`)[a-z_]+)` \| (.+) \|$", re.MULTILINE)


def render_document() -> str:
    """Return the OpenAPI document as it is served, indented; this connects to no server."""
    configure_logging("api", "ERROR")
    app, _ = create_app(bootstrap(Settings(), "api"))
    served = app.test_client().get("/openapi.json")
    return json.dumps(served.json, indent=2, ensure_ascii=False) + "\n"


def render_problem_texts(page: str) -> str:
    """Return the texts of ``/problems/<code>`` as JSON, by code: the rows of the tables of the page on errors."""
    texts = {code: _problem_text(code, status, columns.split(" | ")) for status, code, columns in _ROW.findall(page)}
    return json.dumps(texts, indent=1, ensure_ascii=False) + "\n"


def _problem_text(code: str, status: str, columns: Sequence[str]) -> str:
    """Return the text of a row; of an error of a request only what to do, of one of a run also what happened."""
    if status:
        return f"{code} (HTTP {status})\n\nWhat to do: {columns[0]}\n"
    return f"{code} (of a run)\n\nWhat happened: {columns[0]}\nWhat to do: {columns[1]}\n"


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--check", is_flag=True, help="Compare FILE with what the code says, and write nothing.")
def main(file: Path, *, check: bool) -> None:
    """Write the OpenAPI document that the code makes to FILE, and the texts of ``/problems/<code>``."""
    outdated = []
    for target, text in (
        (file, render_document()),
        (PROBLEM_TEXTS_FILE, render_problem_texts(_ERRORS_PAGE.read_text(encoding="utf-8"))),
    ):
        if not check:
            target.write_text(text, encoding="utf-8")
        elif not target.exists() or target.read_text(encoding="utf-8") != text:
            outdated.append(target.name)
    if outdated:
        names = " and ".join(outdated)
        click.echo(f"{names}: not up to date; run `make openapi`, look at the diff and commit it", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
