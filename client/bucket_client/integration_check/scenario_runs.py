"""Runs the command once for each scenario, beside a proxy of its own; no process of it outlives its run (on POSIX)."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, Final

from bucket_client.integration_check.definition import IntegrationDefinition
from bucket_client.integration_check.exchanges import Exchange
from bucket_client.integration_check.recording_proxy import RecordingProxy
from bucket_client.integration_check.scenarios import Fault, FaultPlan, Scenario, ScenarioTimes

_OUTPUT_BYTES_MAX: Final = 64 * 1024
_LINES_SHOWN: Final = 15
_LOOK_EVERY_S: Final = 0.05


@dataclass(frozen=True, slots=True)
class CommandEnd:
    """How a run of the command ended: ``exit_code`` is None if it was killed because its time was up."""

    exit_code: int | None
    time_limit_s: float
    output: str

    @property
    def is_well(self) -> bool:
        """Return whether it ended by itself with exit code 0."""
        return self.exit_code == 0

    @property
    def detail(self) -> str:
        """Return how it ended, with the last lines of its output if it did not end well."""
        if self.is_well:
            return "exit code 0"
        if self.exit_code is None:
            how = f"it did not end within {self.time_limit_s:g} s and was killed"
        else:
            how = f"exit code {self.exit_code}"
        lines = self.output.rstrip().splitlines()[-_LINES_SHOWN:]
        return (
            "\n".join([f"{how}; its last output:", *(f"  {line}" for line in lines)]) if lines else f"{how}; no output"
        )


@dataclass(frozen=True, slots=True)
class ScenarioRun:
    """What came of one scenario: the end of the command, what it sent, and the faults that its requests met."""

    scenario: Scenario
    end: CommandEnd
    exchanges: tuple[Exchange, ...] = ()
    injected: tuple[Fault, ...] = ()
    client_hung_up: bool = False


async def run_scenario(
    definition: IntegrationDefinition, url: str, scenario: Scenario, times: ScenarioTimes
) -> ScenarioRun:
    """Run the command once against the server at ``url``, through a proxy that injects the faults of ``scenario``."""
    plan = FaultPlan(scenario)
    async with RecordingProxy(url, plan, times) as proxy:
        time_limit_s = definition.timeout_s + times.added_s(scenario)
        end = await run_command(definition, {"BUCKET_URL": proxy.url}, time_limit_s)
    return ScenarioRun(scenario, end, tuple(proxy.exchanges), tuple(plan.injected), proxy.client_hung_up)


async def run_command(definition: IntegrationDefinition, env: Mapping[str, str], time_limit_s: float) -> CommandEnd:
    """Run the command to its end, or kill it after ``time_limit_s``; its whole process group ends with it."""
    with tempfile.TemporaryFile() as output:
        try:
            process = subprocess.Popen(  # noqa: ASYNC220, S603 -- the integrator's own command; Popen returns at once
                definition.command,
                cwd=definition.folder,
                env={**os.environ, **env},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            return CommandEnd(127, time_limit_s, f"the command cannot be started: {error}")
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(time_limit_s):
                    while process.poll() is None:  # noqa: ASYNC110 -- no event tells of its end
                        await asyncio.sleep(_LOOK_EVERY_S)
            exit_code = process.poll()
        finally:
            _kill_group(process)
        return CommandEnd(exit_code, time_limit_s, _tail_of(output))


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    """Kill what is left of the command's process group, of which it is the leader, and reap it."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _tail_of(output: IO[bytes]) -> str:
    size = output.seek(0, os.SEEK_END)
    output.seek(max(0, size - _OUTPUT_BYTES_MAX))
    return output.read().decode(errors="replace")
