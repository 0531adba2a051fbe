"""``python -m api.write_openapi docs/openapi.json`` writes the OpenAPI document; ``--check`` only compares it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from api.app import create_app
from shared.bootstrap import bootstrap
from shared.settings import Settings
from shared.telemetry.logging_setup import configure_logging


def render_document() -> str:
    """Return the OpenAPI document as it is served, indented; this connects to no server."""
    configure_logging("api", "ERROR")
    app, _ = create_app(bootstrap(Settings(), "api"))
    served = app.test_client().get("/openapi.json")
    return json.dumps(served.json, indent=2, ensure_ascii=False) + "\n"


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--check", is_flag=True, help="Compare FILE with what the code says, and write nothing.")
def main(file: Path, *, check: bool) -> None:
    """Write the OpenAPI document that the code makes to FILE."""
    document = render_document()
    if not check:
        file.write_text(document, encoding="utf-8")
    elif not file.exists() or file.read_text(encoding="utf-8") != document:
        click.echo(f"{file} is not what the code says: run `make openapi`, look at its diff and commit it", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
