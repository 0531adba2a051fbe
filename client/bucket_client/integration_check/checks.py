"""Makes the checks of an integration, one after the other, and reports them as they are made."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import shutil
import warnings
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any, Final

from bucket_client.client import Bucket
from bucket_client.errors import BucketError, BucketWarning
from bucket_client.integration_check.definition import IntegrationDefinition
from bucket_client.integration_check.exchanges import Kind
from bucket_client.integration_check.judgement import broken_hints, submit_faults, submitted_baskets, uses_consumers
from bucket_client.integration_check.report import CheckResult, IntegrationReport, Outcome
from bucket_client.integration_check.scenario_runs import ScenarioRun, run_scenario
from bucket_client.integration_check.scenarios import Scenario, ScenarioTimes

DEFINITION: Final = "definition"
SAMPLES: Final = "samples"
MAPPING: Final = "mapping documented"
ENDS_WELL: Final = "command ends well"
BASKET: Final = "submits the basket"
IDEMPOTENT: Final = "submits are idempotent"
HINTS: Final = "hints are obeyed"
SURVIVALS: Final = {
    Scenario.LOST_REPLY: "survives a lost reply",
    Scenario.BUSY: "survives a busy server",
    Scenario.RESTART: "survives a restart",
    Scenario.HANG: "has timeouts",
}
_SAMPLE_TIMEOUT_S: Final = 300.0
_SHOWN: Final = 3
_NO_SUBMIT: Final = (
    "the command sent no submit to BUCKET_URL: either it does not take the address from this environment variable, or "
    "it had nothing to do, for example by a state file of an earlier start; it must begin anew each time"
)
_DISTURBED: Final = (
    "the command ended before it met the fault, but ends well alone: if its runs disturb each other, by a file for "
    "example, check them one at a time"
)
_NO_POLL: Final = "the command sent no poll after a submit, so there was nothing to leave without a reply"

OnCheck = Callable[[CheckResult], object]
_log = logging.getLogger(__name__)


def check_integration(
    definition: IntegrationDefinition,
    url: str,
    api_key: str | None = None,
    on_check: OnCheck | None = None,
    scenarios: Collection[Scenario] | None = None,
    *,
    times: ScenarioTimes | None = None,
    one_at_a_time: bool = False,
) -> IntegrationReport:
    """Check an integration against the server at ``url`` and return the report.

    ``api_key`` is for the requests of the check itself; the command takes its own from its environment. ``on_check`` is
    called with each check as it is made. The command is always run without faults; ``scenarios`` selects what else is
    tried (None: all). Those run side by side, unless the command reads the feed as a consumer, or ``one_at_a_time``
    says that two runs of it would disturb each other, by a file for example. Raises Invalid for an address that is
    none. A KeyboardInterrupt kills the command.
    """
    times = times or ScenarioTimes()
    with Bucket(url, api_key) as bucket:
        checker = _Checker(definition, url.rstrip("/"), bucket, on_check, _secrets(api_key))
        checker.check_definition()
        if checker.failed:
            checker.skip_the_rest(f"{DEFINITION} failed")
        else:
            checker.check_mapping(checker.check_samples())
            asyncio.run(checker.check_command(scenarios, times, one_at_a_time=one_at_a_time))
    return IntegrationReport(definition.name, checker.url, tuple(checker.made))


@dataclass(slots=True)
class _Checker:
    """The checks that were made so far."""

    definition: IntegrationDefinition
    url: str
    bucket: Bucket
    on_check: OnCheck | None
    secrets: tuple[str, ...]
    made: list[CheckResult] = field(default_factory=list)

    @property
    def failed(self) -> bool:
        return any(check.outcome is Outcome.FAILED for check in self.made)

    def check_definition(self) -> None:
        faults: list[str] = []
        program = self.definition.command[0]
        path = str(self.definition.folder / program) if os.sep in program else program
        if shutil.which(path) is None:
            faults.append(f"the command cannot be started: there is no program {program!r}")
        try:
            self.bucket.basket(self.definition.basket)
        except BucketError as error:
            faults.append(f"basket {self.definition.basket!r}: {error.message}")
        self._add(CheckResult.of(DEFINITION, faults))

    def check_samples(self) -> list[Any]:
        """Run each sample and return the results."""
        faults: list[str] = []
        notes: list[str] = []
        results: list[Any] = []
        for index, given in enumerate(self.definition.samples):
            place = f"samples[{index}]"
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", BucketWarning)
                    accepted = self.bucket.run(self.definition.basket, given)
                    done = self.bucket.wait(accepted.execution_id, timeout=_SAMPLE_TIMEOUT_S)
            except BucketError as error:
                pointers = f" (at {', '.join(error.pointers)})" if error.pointers else ""
                faults.append(f"{place}{pointers}: {error.message}")
                continue
            results.append(done.result)
            texts = [*accepted.warnings, *(line["message"] for line in done.logs if line["level"] == "warning")]
            notes += [f"{place} warns: {text}" for text in texts]
        if not faults:
            notes.insert(0, f"{len(results)} accepted and completed")
        self._add(CheckResult.of(SAMPLES, [*faults, *notes] if faults else [], "\n".join(notes)))
        return results

    def check_mapping(self, results: list[Any]) -> None:
        try:
            text = self.definition.mapping.read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            self._add(CheckResult.of(MAPPING, [f"{self.definition.mapping.name} cannot be read: {error}"]))
            return
        keys = [("input", key) for given in self.definition.samples for key in given]
        keys += [("result", key) for result in results if isinstance(result, dict) for key in result]
        name = self.definition.mapping.name
        faults = [
            f"{name} does not name {key!r} of the {side}: describe it"
            for side, key in dict.fromkeys(keys)
            if not re.search(rf"(?<![\w-]){re.escape(key)}(?![\w-])", text)
        ]
        unknown = len(self.definition.samples) - len(results)
        if unknown and not faults:
            why = f"{unknown} samples brought no result, whose fields are therefore not known"
            self._add(CheckResult(MAPPING, Outcome.SKIPPED, why))
        else:
            self._add(CheckResult.of(MAPPING, faults, f"all {len(set(keys))} fields are described"))

    async def check_command(
        self, scenarios: Collection[Scenario] | None, times: ScenarioTimes, *, one_at_a_time: bool
    ) -> None:
        """Run the command without faults, then with each selected fault, and judge what it sent."""
        plain = await run_scenario(self.definition, self.url, Scenario.PLAIN, times)
        self._add(CheckResult.of(ENDS_WELL, [] if plain.end.is_well else [plain.end.detail], plain.end.detail))
        self._add(self._basket_check(plain))
        runs = [plain]
        why = f"{ENDS_WELL} failed" if not plain.end.is_well else "it was not selected"
        selected = list(SURVIVALS) if scenarios is None else [each for each in SURVIVALS if each in scenarios]
        if plain.end.is_well:
            one_at_a_time = one_at_a_time or uses_consumers(plain.exchanges)
            turns = asyncio.Semaphore(1 if one_at_a_time else len(Scenario))

            async def run_in_turn(scenario: Scenario) -> ScenarioRun:
                async with turns:
                    return await run_scenario(self.definition, self.url, scenario, times)

            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(run_in_turn(scenario)) for scenario in selected]
            runs += [task.result() for task in tasks]
        self._add(_idempotency_check(runs))
        self._add(_hints_check(runs))
        by_scenario = {run.scenario: run for run in runs}
        for scenario, name in SURVIVALS.items():
            run = by_scenario.get(scenario)
            self._add(CheckResult(name, Outcome.SKIPPED, why) if run is None else _survival_check(run, times))

    def skip_the_rest(self, why: str) -> None:
        """Add all checks that come after that of the definition as skipped."""
        for name in (SAMPLES, MAPPING, ENDS_WELL, BASKET, IDEMPOTENT, HINTS, *SURVIVALS.values()):
            self._add(CheckResult(name, Outcome.SKIPPED, why))

    def _basket_check(self, plain: ScenarioRun) -> CheckResult:
        names = submitted_baskets(plain.exchanges)
        if self.definition.basket in names:
            return CheckResult(BASKET, Outcome.PASSED)
        found = f"; it submitted {', '.join(sorted(names))}" if names else ""
        missing = f"the command did not submit {self.definition.basket!r} to BUCKET_URL{found}"
        return CheckResult.of(BASKET, [missing])

    def _add(self, check: CheckResult) -> None:
        detail = check.detail
        for secret in self.secrets:
            detail = detail.replace(secret, "***")
        check = CheckResult(check.name, check.outcome, detail)
        self.made.append(check)
        if self.on_check is not None:
            try:
                self.on_check(check)
            except Exception:  # noqa: BLE001 -- a hook that fails must not end the check
                _log.exception("on_check failed for %r", check.name)


def _idempotency_check(runs: list[ScenarioRun]) -> CheckResult:
    submits = _count(runs, lambda kind: kind is Kind.SUBMIT)
    if not submits:
        return CheckResult(IDEMPOTENT, Outcome.SKIPPED, _NO_SUBMIT)
    places: dict[str, list[str]] = {}
    for run in runs:
        for fault in submit_faults(run.exchanges, ended_well=run.end.is_well):
            places.setdefault(fault, []).append(run.scenario)
    faults = [f"{fault} ({', '.join(scenarios)})" for fault, scenarios in places.items()]
    return CheckResult.of(IDEMPOTENT, faults, f"{submits} submits in {len(runs)} runs of the command")


def _hints_check(runs: list[ScenarioRun]) -> CheckResult:
    if not _count(runs, lambda kind: kind is Kind.SUBMIT or kind.is_poll):
        return CheckResult(HINTS, Outcome.SKIPPED, _NO_SUBMIT)
    polls = _count(runs, lambda kind: kind.is_poll)
    early = [(request, run.scenario) for run in runs for request in broken_hints(run.exchanges)]
    early.sort(key=lambda found: found[0].pause_s - found[0].allowed_s)
    faults = [f"{scenario}: {request}" for request, scenario in early[:_SHOWN]]
    if early:
        faults.insert(0, f"{len(early)} requests came too early: wait poll_after_ms or Retry-After before each")
    return CheckResult.of(HINTS, faults, f"{polls} polls, none too early")


def _survival_check(run: ScenarioRun, times: ScenarioTimes) -> CheckResult:
    name = SURVIVALS[run.scenario]
    if not run.injected:
        why = _NO_POLL if run.scenario is Scenario.HANG else _NO_SUBMIT
        if run.end.is_well:
            return CheckResult(name, Outcome.SKIPPED, why)
        return CheckResult.of(name, [f"{_DISTURBED}\n{run.end.detail}"])
    faults = [] if run.end.is_well else [run.end.detail]
    if run.scenario is Scenario.HANG and not run.client_hung_up:
        advice = "give each request a timeout below that, and above 30 s if it is a long poll"
        faults.insert(0, f"a poll without a reply was still open after {times.hang_s:g} s: {advice}")
    return CheckResult.of(name, faults, run.end.detail)


def _count(runs: list[ScenarioRun], is_counted: Callable[[Kind], bool]) -> int:
    return sum(is_counted(exchange.request.kind) for run in runs for exchange in run.exchanges)


def _secrets(api_key: str | None) -> tuple[str, ...]:
    """Return what a report must not contain, even if the command printed it."""
    return tuple(secret for secret in (api_key, os.environ.get("BUCKET_API_KEY")) if secret)
