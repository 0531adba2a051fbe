"""Scenarios: what goes wrong during one run of the command, and which of its requests meets the fault."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, StrEnum, auto

from bucket_client.integration_check.exchanges import Kind, RecordedRequest


class Scenario(StrEnum):
    """What goes wrong during one run of the command."""

    PLAIN = "plain"
    """Nothing."""
    LOST_REPLY = "lost reply"
    """The first submit arrives, and the connection breaks before its reply."""
    BUSY = "busy server"
    """The first submit and the first poll get 503 with a Retry-After."""
    RESTART = "restart"
    """After the first submit the server refuses connections for some seconds."""
    HANG = "hang"
    """The first poll after a submit gets no reply at all."""


@dataclass(frozen=True, slots=True)
class ScenarioTimes:
    """How long the faults last; ``retry_after_s`` is what a busy server says."""

    restart_s: float = 5.0
    hang_s: float = 90.0
    retry_after_s: int = 2

    def added_s(self, scenario: Scenario) -> float:
        """Return how much longer a run of the command may take because of the fault."""
        added = {
            Scenario.BUSY: 2.0 * self.retry_after_s,
            Scenario.RESTART: self.restart_s,
            Scenario.HANG: self.hang_s,
        }
        return added.get(scenario, 0.0)


class Fault(Enum):
    """What the proxy does with one request."""

    NONE = auto()
    LOSE_REPLY = auto()
    REFUSE = auto()
    RESTART = auto()
    HANG = auto()


class FaultPlan:
    """Decides for each request of one run of the command which fault it meets."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.injected: list[Fault] = []
        self._submits = 0
        self._polls = 0
        self._polls_after_submit = 0

    @property
    def declines_holds(self) -> bool:
        """Return whether submits lose their ``Prefer: wait``, as a server may always decide.

        A quick run would otherwise be done in the reply to the submit, and no poll would meet the fault.
        """
        return self.scenario in {Scenario.BUSY, Scenario.RESTART, Scenario.HANG}

    def next_fault(self, request: RecordedRequest) -> Fault:
        """Return what to do with a request, and remember that it came."""
        self._submits += request.kind is Kind.SUBMIT
        self._polls += request.kind.is_poll
        self._polls_after_submit += request.kind.is_poll and self._submits > 0
        fault = self._fault_of(request)
        if fault is not Fault.NONE:
            self.injected.append(fault)
        return fault

    def _fault_of(self, request: RecordedRequest) -> Fault:
        is_first_submit = request.kind is Kind.SUBMIT and self._submits == 1
        is_first_poll = request.kind.is_poll and self._polls == 1
        match self.scenario:
            case Scenario.LOST_REPLY if is_first_submit:
                return Fault.LOSE_REPLY
            case Scenario.BUSY if is_first_submit or is_first_poll:
                return Fault.REFUSE
            case Scenario.RESTART if is_first_submit:
                return Fault.RESTART
            case Scenario.HANG if request.kind.is_poll and self._polls_after_submit == 1:
                return Fault.HANG
        return Fault.NONE
