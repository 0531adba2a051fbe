"""What a run has sent, and what was wrong with the replies."""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.trust.reply_checks import Reply
from tests.trust.request_maker import MadeRequest


@dataclass(slots=True)
class Findings:
    """What was sent and what was wrong; each kind of fault has its number and its first example."""

    operations: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    successes: Counter[str] = field(default_factory=Counter)
    replies: dict[str, Counter[int]] = field(default_factory=lambda: defaultdict(Counter))
    """The statuses of each operation."""
    faults: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    seen: dict[tuple[str, str], str] = field(default_factory=dict)
    """Each (marker of a party, id of an execution) that a reply had, with the request."""
    observed: set[str] = field(default_factory=set)
    """The markers of the parties of which the observer has seen something."""
    twins: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, request: MadeRequest, reply: Reply) -> None:
        """Count a reply."""
        with self._lock:
            self.operations += 1
            self.statuses[reply.status] += 1
            self.replies[request.operation.name][reply.status] += 1
            if reply.status < 400 and request.foreign_path is None:
                self.successes[request.operation.name] += 1

    def add(self, kind: str, example: str) -> None:
        """Record a fault."""
        with self._lock:
            self.faults[kind] += 1
            self.examples.setdefault(kind, example)

    def report(self) -> Iterator[str]:
        """Yield the lines of a report."""
        statuses = ", ".join(f"{status}: {number}" for status, number in sorted(self.statuses.items()))
        yield f"{self.operations} operations, {self.twins} of them compared with one that does not exist; {statuses}"
        for kind, number in self.faults.most_common():
            yield f"{number} times: {kind}\n    {self.examples[kind][:600]}"
