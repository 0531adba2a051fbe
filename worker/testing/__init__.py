"""What tests of agents use: a context without a stack, a scripted gateway, and a run with a worker's checks.

No worker imports it.
"""

from worker.testing.agent_trial import TrialFailed, find_agent_folder, load_agent, run_agent
from worker.testing.fake_context import FakeContext
from worker.testing.fake_http import FakeHttp, RecordedCall
from worker.testing.in_memory import InMemoryCheckpoints, InMemoryLedger, RecordingReporter

__all__ = [
    "FakeContext",
    "FakeHttp",
    "InMemoryCheckpoints",
    "InMemoryLedger",
    "RecordedCall",
    "RecordingReporter",
    "TrialFailed",
    "find_agent_folder",
    "load_agent",
    "run_agent",
]
