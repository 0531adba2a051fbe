"""``bucketd agents``: makes, checks and runs one's own agents, and installs their packages."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Final

import click

from compose.cli import console
from compose.operator_error import OperatorError
from shared.errors import BucketError

# Exit codes of `agents run`; 2 is a wrong command line.
EXIT_CODES: Final = {
    "agent_error": 1,
    "input_invalid": 3,
    "output_invalid": 4,
    "output_not_serialisable": 4,
    "output_too_large": 4,
    "timeout": 6,
    "agent_unavailable": 7,
    "worker_lost": 8,
}
EXIT_TRANSIENT: Final = 5

_path_argument = click.argument(
    "path", type=click.Path(exists=True, file_okay=False, path_type=Path), required=False, metavar="[PATH]"
)


@click.group()
def agents() -> None:
    """Make, check and run your own agents, and install their packages."""


@agents.command()
@click.argument("name")
@click.option(
    "--dir",
    "directory",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where its folder is made; by default BUCKET_AGENTS_DIR, or ./my_agents.",
)
def new(name: str, *, directory: Path | None) -> None:
    """Make the folder of a new agent NAME: a spec, a module and a test, which pass as they are."""
    from compose.own_agents.agent_template import create_agent  # here, because other commands need nothing of agents
    from worker.testing.agent_trial import agents_dir

    parent = directory or agents_dir()
    try:
        files = create_agent(name, parent)
    except OperatorError as error:
        console.print_failure("agents new", error)
        sys.exit(1)
    for file in files:
        console.print_ok("made", str(file))
    programs = Path(sys.executable).parent
    shown = programs.relative_to(Path.cwd()) if programs.is_relative_to(Path.cwd()) else programs
    console.say(
        f"\nEdit them, then:\n\n"
        f"  {shown / 'bucketd'} agents check {parent / name}\n"
        f"  {shown / 'pytest'} {parent / name}\n"
        f"  BUCKET_AGENTS_DIR={parent} make up"
    )


@agents.command()
@_path_argument
@click.option("--no-run", is_flag=True, help="Do not run the samples; the code is still loaded.")
@click.option("--timeout", type=click.FloatRange(0, min_open=True), help="Seconds for a sample; by default 30 at most.")
def check(path: Path | None, *, no_run: bool, timeout: float | None) -> None:
    """Check agents: spec, schemas, code, and the sample, which is run.

    PATH is a folder of agents or the folder of one; by default BUCKET_AGENTS_DIR, or ./my_agents, or else the built-in
    agents. The exit code is 1 if an agent is wrong.
    """
    from compose.own_agents.agent_checks import find_agent_folders
    from compose.own_agents.trials import check_folders

    faulty = 0
    try:
        folders = find_agent_folders(_agents_path(path))
        if not folders:
            fix = "bucketd agents new NAME makes one; an agent is a folder with agent_spec.json"
            raise OperatorError(f"there is no agent in {_agents_path(path)}", fix=fix)
        for report in check_folders(folders, runs_sample=not no_run, timeout_s=timeout):
            faulty += bool(report.faults)
            if report.faults:
                details = "\n".join([*report.faults, *report.notes, *report.traceback.splitlines()])
                console.print_failure(report.name, OperatorError("is wrong", fix=details))
                continue
            console.print_ok(report.name, report.summary)
            for note in report.notes:
                console.print_warning(f"{report.name}: {note}")
    except BucketError as error:
        _fail("agents check", error)
    if faulty:
        sys.exit(1)


@agents.command()
@click.argument("agent", metavar="NAME")
@click.option(
    "--input", "given", required=True, metavar="FILE|-|JSON", help="Its input: a file, stdin, or JSON itself."
)
@click.option("--setting", "settings", multiple=True, metavar="NAME=VALUE", help="A setting, instead of the variable.")
@click.option("--state", type=click.Path(dir_okay=False), help="A file for its checkpoints, read by the next run.")
@click.option("--timeout", type=click.FloatRange(0, min_open=True), help="Seconds; by default timeout_s of its spec.")
def run(agent: str, *, given: str, settings: tuple[str, ...], state: str | None, timeout: float | None) -> None:
    """Run one attempt of an agent without a stack; NAME may be its folder.

    Log lines and progress go to stderr, the output to stdout. Exit codes: 0 completed, 1 the agent failed, 2 a wrong
    command, 3 the input is refused, 4 the output is refused, 5 a failure that a worker would try again, 6 too slow, 7
    the agent cannot be loaded, 8 it ended its process.
    """
    from compose.own_agents.trial_process import TrialJob
    from compose.own_agents.trials import run_job
    from shared.catalogue.agent_catalogue import load_one_agent
    from worker.testing.agent_trial import find_agent_folder

    values = dict(_parse_setting(each) for each in settings)
    step_input = _read_input(given)
    try:
        folder = find_agent_folder(agent)
        timeout_s = timeout or load_one_agent(folder).agents()[0].timeout_s
        state_file = str(Path(state).resolve()) if state else None
        outcome = run_job(TrialJob(str(folder), step_input, timeout_s, values, state_file))
    except BucketError as error:
        _fail("agents run", error, exit_code=EXIT_CODES["agent_unavailable"])
        return
    if not outcome.error_code:
        click.echo(json.dumps(outcome.output, ensure_ascii=False, indent=2))
        return
    fix = "\n".join([f"kind: {outcome.kind}" if outcome.kind else "", *outcome.traceback.splitlines()]).strip()
    console.print_failure(outcome.error_code, OperatorError(outcome.message, fix=fix))
    sys.exit(EXIT_TRANSIENT if outcome.kind == "transient" else EXIT_CODES.get(outcome.error_code, 1))


@agents.command()
@_path_argument
def install(path: Path | None) -> None:
    """Install what the requirements.txt of agents name, and nothing that changes a package of Bucket.

    PATH is a folder of agents or the folder of one; by default BUCKET_AGENTS_DIR, or ./my_agents.
    """
    from compose.own_agents.agent_packages import install_packages

    try:
        for file, sentence in install_packages(_agents_path(path), console.project_root() / "requirements.lock"):
            console.print_ok(file, sentence)
    except OperatorError as error:
        _fail("agents install", error)


def _agents_path(path: Path | None) -> Path:
    from worker.testing.agent_trial import BUILTIN_AGENTS_DIR, agents_dir

    chosen = path or agents_dir()
    return chosen if chosen.is_dir() else BUILTIN_AGENTS_DIR


def _parse_setting(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise click.BadParameter("must be NAME=VALUE", param_hint="--setting")  # the text may be a secret
    return name, value


def _read_input(given: str) -> Any:
    """Return the JSON of a file, of stdin (``-``), or of the text itself if it begins like an object."""
    try:
        if given.lstrip().startswith("{"):
            text = given
        else:
            text = sys.stdin.read() if given == "-" else Path(given).read_text(encoding="utf-8")
        step_input = json.loads(text)
    except OSError as error:
        raise click.BadParameter(f"{given} cannot be read: {error.strerror}", param_hint="--input") from error
    except ValueError as error:
        raise click.BadParameter(f"is not JSON: {error}", param_hint="--input") from error
    if not isinstance(step_input, dict):
        raise click.BadParameter("must be a JSON object", param_hint="--input")
    return step_input


def _fail(subject: str, error: BucketError, exit_code: int = 1) -> None:
    """Print the error of a command, with its fix if it has one, and exit."""
    failure = error if isinstance(error, OperatorError) else OperatorError("not possible", fix=error.message)
    console.print_failure(subject, failure)
    sys.exit(exit_code)
