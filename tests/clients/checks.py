"""The checks of ``make clients``: linters of the document and the manifests; a program with each generated client."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from tests.clients.cures import run_examples
from tests.clients.toolbox import HERE, CommandFailed, Toolbox
from tests.openapi_conformance import DOCUMENT

PROGRAMS: Final = HERE / "programs"
MANIFESTS: Final = HERE.parents[1] / "ops" / "kubernetes"
KUBERNETES_VERSIONS: Final = ("1.31", "1.37")
KINDS_OF_KEDA: Final = {"ScaledObject", "TriggerAuthentication"}
# What each program prints: the run that completed, the one that failed, and a refused submit.
SAYS: Final = re.compile(r"completed 1000\nfailed card_declined\nrefused basket_not_found\n\Z")


def redocly(toolbox: Toolbox, _url: str) -> str:
    """Lint the document with redocly's recommended rules: no error, no warning."""
    command = toolbox.node_modules("linters") / "@redocly" / "cli" / "bin" / "cli.js"
    options = ("lint", DOCUMENT, "--format", "json")
    output = toolbox.run_node(command, *options, REDOCLY_TELEMETRY="off", REDOCLY_SUPPRESS_UPDATE_NOTICE="true")
    return _count_problems(json.loads(output[output.index("{") : output.rindex("}") + 1])["problems"])


def spectral(toolbox: Toolbox, _url: str) -> str:
    """Lint the document with spectral's rules for OpenAPI: no error, no warning."""
    rules = toolbox.root / "spectral.json"
    rules.write_text('{"extends": ["spectral:oas"]}')
    command = toolbox.node_modules("linters") / "@stoplight" / "spectral-cli" / "dist" / "index.js"
    options = ("--ruleset", rules, "--format", "json", "--quiet", "--fail-severity", "hint")
    output = toolbox.run_node(command, "lint", *options, DOCUMENT)
    return _count_problems(json.loads(output) if output.strip() else [])


def kubernetes_validate(toolbox: Toolbox, _url: str) -> str:
    """Check the Kubernetes manifests against its schemas, which know every key; KEDA's kinds have none there."""
    command = toolbox.venv("kubernetes_validate") / "bin" / "kubernetes-validate"
    manifests = sorted(path for path in MANIFESTS.glob("*.yaml") if path.name != "kustomization.yaml")
    for version in KUBERNETES_VERSIONS:
        output = toolbox.run(command, "--strict", "-k", version, *manifests)
        missing = set(re.findall(r"find schema for kind (\w+)", output))
        if missing != KINDS_OF_KEDA:
            raise CommandFailed(f"Kubernetes {version}: no schema for {sorted(missing)}\n{output}")
    return f"{len(manifests)} files, Kubernetes {' and '.join(KUBERNETES_VERSIONS)}"


def _count_problems(problems: list[Mapping[str, object]]) -> str:
    if problems:
        raise CommandFailed(json.dumps(problems[:10], indent=1))
    return "no error, no warning"


def openapi_python_client(toolbox: Toolbox, url: str) -> str:
    """Generate a client without a warning, check its types strictly, and play with it."""
    venv, folder = toolbox.venv("openapi_python_client"), toolbox.folder("openapi-python-client")
    config = toolbox.root / "openapi-python-client.json"
    config.write_text('{"post_hooks": []}')  # the hooks' fixes by ruff make the types of the client wrong
    options = ("--path", DOCUMENT, "--meta", "none", "--output-path", folder / "bucket_client", "--fail-on-warning",
               "--config", config)  # fmt: skip
    toolbox.run(venv / "bin" / "openapi-python-client", "generate", *options)
    return _play_python(toolbox, venv, folder, "openapi_python_client.py", url)


def openapi_generator(toolbox: Toolbox, url: str) -> str:
    """Generate a Python client with openapi-generator, and play with it."""
    venv, folder = toolbox.venv("openapi_generator"), toolbox.folder("openapi-generator")
    names = ("--package-name", "bucket_client", "--global-property", "modelTests=false,apiTests=false")
    options = ("-g", "python", "-i", DOCUMENT, "-o", folder, *names)
    toolbox.run(venv / "bin" / "openapi-generator-cli", "generate", *options)
    return _play_python(toolbox, venv, folder, "openapi_generator.py", url, is_typed=False)


def _play_python(toolbox: Toolbox, venv: Path, folder: Path, program: str, url: str, *, is_typed: bool = True) -> str:
    """Check the types of the client in ``folder`` and of its program (``is_typed``), and run the program."""
    shutil.copy(PROGRAMS / program, folder / "play.py")
    python = venv / "bin" / "python"
    if is_typed:
        toolbox.run(venv / "bin" / "mypy", "--strict", "play.py", "bucket_client", cwd=folder)
    return _check_output(toolbox.run(python, "play.py", url, cwd=folder))


def openapi_typescript(toolbox: Toolbox, url: str) -> str:
    """Generate types with openapi-typescript, and play with openapi-fetch."""
    return _play_typescript(toolbox, url, "openapi_fetch.ts", "openapi-typescript/bin/cli.js", "openapi-typescript.ts")


def hey_api(toolbox: Toolbox, url: str) -> str:
    """Generate a client with @hey-api/openapi-ts, and play with it."""
    return _play_typescript(toolbox, url, "hey_api.ts", "@hey-api/openapi-ts/bin/run.js", "hey-api", option="--input")


def orval(toolbox: Toolbox, url: str) -> str:
    """Generate a client on top of fetch with orval, and play with it."""
    more = ("--client", "fetch", "--fail-on-warnings")
    return _play_typescript(toolbox, url, "orval.ts", "orval/dist/bin/orval.mjs", "orval.ts", *more, option="--input")


def _play_typescript(
    toolbox: Toolbox, url: str, program: str, command: str, generated: str, *more: str, option: str = ""
) -> str:
    """Generate a client with ``command``, compile it with its program under ``--strict``, and run the program."""
    modules = toolbox.node_modules("typescript")
    folder = toolbox.folder(f"typescript/{program}")
    source = [option, DOCUMENT] if option else [DOCUMENT]
    toolbox.run_node(modules / command, *source, "--output", folder / "generated" / generated, *more, cwd=folder)
    shutil.copy(PROGRAMS / program, folder)
    options = (
        "--strict",
        "--skipLibCheck",
        "--target",
        "es2022",
        "--module",
        "commonjs",
        "--lib",
        "es2022,dom,dom.iterable",
    )
    tsc = modules / "typescript" / "bin" / "tsc"
    toolbox.run_node(tsc, *options, "--outDir", folder / "compiled", folder / program, cwd=folder)
    return _check_output(toolbox.run_node((folder / "compiled" / program).with_suffix(".js"), url, cwd=folder))


def _check_output(output: str) -> str:
    if not SAYS.search(output):
        raise CommandFailed(output)
    return "generated; a whole submit and poll"


CHECKS: Final[Mapping[str, Callable[[Toolbox, str], str]]] = {
    "redocly": redocly,
    "spectral": spectral,
    "kubernetes-validate": kubernetes_validate,
    "openapi-python-client": openapi_python_client,
    "openapi-generator": openapi_generator,
    "openapi-typescript": openapi_typescript,
    "hey-api": hey_api,
    "orval": orval,
    "cures": run_examples,
}
