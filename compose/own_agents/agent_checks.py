"""Checks one agent as its author wants to know it: its spec, its code, and its sample, run for real."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from compose.own_agents.agent_template import find_builtin_folder
from compose.own_agents.trial_process import TrialJob, run_trial
from shared.catalogue.agent_catalogue import load_one_agent
from shared.catalogue.agent_entry import SPEC_FILE
from shared.domain.definitions.agent_spec import AgentSpec
from shared.errors import SpecError
from worker.agent_settings import missing_settings, read_settings

SAMPLE_TIMEOUT_MAX_S: Final = 30.0
_DIFFERENCES_MAX: Final = 5
_TEXT_MAX: Final = 80


@dataclass(slots=True)
class AgentReport:
    """What was found about one agent; it is wrong if there are ``faults``, ``notes`` are only told."""

    name: str
    summary: str = ""
    faults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    traceback: str = ""


def find_agent_folders(path: Path) -> list[Path]:
    """Return the folders to check: ``path`` if it is one agent's, else those in it; sorted by name."""
    if (path / SPEC_FILE).exists():
        return [path.resolve()]
    return sorted(each.resolve() for each in path.iterdir() if each.is_dir() and each.name[0] not in "._")


def check_agent(folder: Path, *, runs_sample: bool = True, timeout_s: float | None = None) -> AgentReport:
    """Check the agent in ``folder``; its sample may take ``timeout_s``, by default the spec's limit, at most 30 s."""
    report = AgentReport(folder.name)
    try:
        catalogue = load_one_agent(folder)
    except SpecError as error:
        report.faults += error.message.splitlines()
        return report
    spec = catalogue.agents()[0]
    report.summary = f"{spec.version} ({', '.join(spec.domains)}) from {folder}"
    builtin = find_builtin_folder(spec.name)
    if builtin is not None and builtin.resolve() != folder.resolve():
        report.faults.append(f"name {spec.name!r} is taken by {builtin}")
    missing = missing_settings(spec.settings, read_settings(spec.settings))
    if missing:
        consequence = ", so its sample was not run; without it the agent is unavailable" if runs_sample else ""
        names = f"setting {missing[0]} is" if len(missing) == 1 else f"settings {', '.join(missing)} are"
        report.notes.append(f"the {names} not set here{consequence}")
    limit_s = timeout_s or min(spec.timeout_s, SAMPLE_TIMEOUT_MAX_S)
    _try_agent(report, spec, folder, limit_s, runs_sample=runs_sample and not missing)
    return report


def _try_agent(report: AgentReport, spec: AgentSpec, folder: Path, limit_s: float, *, runs_sample: bool) -> None:
    """Load the agent and, if ``runs_sample``, run it; add what is wrong to the report."""
    given = spec.sample_input if runs_sample else None
    outcome = run_trial(TrialJob(str(folder), given, limit_s, {}, is_quiet=True))
    if outcome.error_code == "agent_unavailable":
        # A module that reads a setting at its import cannot be loaded without it, and a worker does not try.
        lacks_settings = missing_settings(spec.settings, read_settings(spec.settings))
        (report.notes if lacks_settings else report.faults).extend(outcome.message.splitlines())
    elif outcome.error_code == "timeout":
        report.faults.append(
            f"the sample did not end within {limit_s:g} s (timeout_s is {spec.timeout_s:g}); --timeout gives it more"
        )
    elif outcome.error_code == "worker_lost" and not runs_sample:
        report.faults.append(
            f"the import of {spec.entry.partition(':')[0]}.py ended its process (os._exit, or a crash in a library): "
            "it would end every worker as it starts"
        )
    elif outcome.error_code:
        report.faults.append(f"the sample failed with {outcome.error_code}: {outcome.message}")
    elif runs_sample:
        differences = list(find_differences(spec.sample_output, outcome.output))
        report.notes += [f"its output differs from sample_output at {each}" for each in differences[:_DIFFERENCES_MAX]]
    report.traceback = outcome.traceback


def find_differences(expected: Any, actual: Any, pointer: str = "") -> Iterator[str]:
    """Yield where two JSON values differ, as ``<JSON Pointer>: <actual> instead of <expected>``."""
    if isinstance(expected, dict) and isinstance(actual, dict):
        for name in [*expected, *(name for name in actual if name not in expected)]:
            here = f"{pointer}/{str(name).replace('~', '~0').replace('/', '~1')}"
            if name not in actual:
                yield f"{here}: it is missing"
            elif name not in expected:
                yield f"{here}: sample_output does not have it"
            else:
                yield from find_differences(expected[name], actual[name], here)
    elif isinstance(expected, list) and isinstance(actual, list) and len(expected) == len(actual):
        for index, (one, other) in enumerate(zip(expected, actual, strict=True)):
            yield from find_differences(one, other, f"{pointer}/{index}")
    elif expected != actual:
        yield f"{pointer or '/'}: {_short(actual)} instead of {_short(expected)}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _TEXT_MAX else f"{text[:_TEXT_MAX]}…"
