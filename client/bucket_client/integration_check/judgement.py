"""Judges recorded exchanges: were the hints obeyed, and were submits idempotent? Pure functions, no input or output.

A hint binds the next poll of the same run, or of the same page of the feed. It does not bind
- a poll of a run that is done, or whose last reply left something out (log lines, changes, ``left_out``);
- a poll after a long poll that was granted or that brought a change;
- a long poll after a reply that was not to a long poll: it costs the server one reply for the whole wait;
- a poll of many in which one run may be polled, or was submitted and not polled yet. Bucket's own programs begin so.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from bucket_client.integration_check.exchanges import Exchange, Kind, RecordedReply, RecordedRequest, RunState

TOLERANCE_S: Final = 0.02
"""How much too early a poll may come: clocks and timers are not exact."""
_HELD_MIN_S: Final = 1.0
_REFUSED_FOR_NOW: Final = frozenset({429, 502, 503, 504})
_SUCCESS: Final = range(200, 400)


@dataclass(frozen=True, slots=True)
class TooEarly:
    """A request that came earlier after a reply than the reply allowed, in seconds."""

    request: str
    pause_s: float
    allowed_s: float
    was_refused: bool

    def __str__(self) -> str:
        reply = "the 503" if self.was_refused else "the reply"
        return (
            f"{self.request} came {self.pause_s * 1000:.0f} ms after {reply} that said {self.allowed_s * 1000:.0f} ms"
        )


@dataclass(frozen=True, slots=True)
class _Hint:
    """What a reply says of the next poll; ``kind`` is that of the request that it replies to."""

    replied_at: float
    pause_s: float
    kind: Kind
    was_held: bool = False

    def binds(self, request: RecordedRequest) -> bool:
        if request.kind is Kind.POLL_OF_MANY and self.kind is Kind.SUBMIT:
            return False
        return self.was_held or not request.hold_s

    def is_early(self, arrived_at: float) -> bool:
        return arrived_at < self.replied_at + self.pause_s - TOLERANCE_S


@dataclass(slots=True)
class _HintKeeper:
    """The hints in force at one moment, by the run or page of the feed; and those of refused requests."""

    hints: dict[str, _Hint] = field(default_factory=dict)
    refusals: dict[tuple[str, str, bytes], _Hint] = field(default_factory=dict)
    revs: dict[str, int | None] = field(default_factory=dict)

    def judge(self, request: RecordedRequest) -> TooEarly | None:
        """Return how a request breaks a hint in force, or None."""
        refusal = self.refusals.pop((request.method, request.path, request.body), None)
        if refusal and refusal.is_early(request.arrived_at):
            return _too_early(request, refusal, was_refused=True)
        found = [self.hints.get(subject) for subject in request.subjects]
        early = [hint for hint in found if hint and hint.binds(request) and hint.is_early(request.arrived_at)]
        if not early or len(early) < len(found):
            return None
        return _too_early(request, min(early, key=lambda hint: hint.replied_at + hint.pause_s), was_refused=False)

    def note(self, request: RecordedRequest, reply: RecordedReply) -> None:
        """Remember what a reply says."""
        if reply.status in _REFUSED_FOR_NOW:
            refusal = _Hint(reply.replied_at, reply.retry_after_s or 0.0, request.kind)
            self.refusals[request.method, request.path, request.body] = refusal
            return
        if request.kind is Kind.SUBMIT:
            for run_id, run in reply.runs.items():
                self._set(run_id, request, reply, run, is_free=reply.was_granted)
        elif request.kind.is_poll:
            for subject in request.subjects:
                self._set(
                    subject, request, reply, reply.runs.get(subject), is_free=self._is_free(subject, request, reply)
                )
        for run_id, run in reply.runs.items():
            is_news = run.done or self.revs.get(run_id) != run.rev
            if is_news and run_id not in request.subjects and request.kind is not Kind.SUBMIT:
                self.hints.pop(run_id, None)  # a list, the feed or a cancel says that there is something to learn
            self.revs[run_id] = run.rev

    def _is_free(self, subject: str, request: RecordedRequest, reply: RecordedReply) -> bool:
        """Return whether the next poll may come at once although the run is not done."""
        if reply.has_more or subject in reply.left_out or reply.status not in _SUCCESS:
            return True
        run = reply.runs.get(subject)
        is_changed = reply.has_lines or (run is not None and run.rev != self.revs.get(subject))
        return request.hold_s > 0 and (is_changed or _was_granted(request, reply))

    def _set(
        self, subject: str, request: RecordedRequest, reply: RecordedReply, run: RunState | None, *, is_free: bool
    ) -> None:
        if is_free or (run is not None and run.done):
            self.hints.pop(subject, None)
            return
        is_submit = request.kind is Kind.SUBMIT
        own_ms = run.poll_after_ms if run is not None and is_submit else None  # each item of a batch has its own
        pause_s = reply.hint_s if own_ms is None else own_ms / 1000
        self.hints[subject] = _Hint(reply.replied_at, pause_s, request.kind, request.hold_s > 0 and not is_submit)


def broken_hints(exchanges: Iterable[Exchange]) -> list[TooEarly]:
    """Return the requests that came earlier than the hints of the replies before them allowed, in order."""
    events: list[tuple[float, int, Exchange]] = []
    for exchange in exchanges:
        events.append((exchange.request.arrived_at, 1, exchange))
        if exchange.reply is not None and exchange.was_delivered:
            events.append((exchange.reply.replied_at, 0, exchange))
    keeper = _HintKeeper()
    found: list[TooEarly] = []
    for _, is_request, exchange in sorted(events, key=lambda event: event[:2]):
        if is_request:
            if too_early := keeper.judge(exchange.request):
                found.append(too_early)
        elif exchange.reply is not None:
            keeper.note(exchange.request, exchange.reply)
    return found


def submit_faults(exchanges: Sequence[Exchange], *, ended_well: bool) -> list[str]:
    """Return a sentence for each way in which the submits of one run of the command are not idempotent."""
    submits = [exchange for exchange in exchanges if exchange.request.kind is Kind.SUBMIT]
    faults = list(dict.fromkeys(_missing_keys(submits)))
    runs = {run_id for exchange in submits if exchange.reply for run_id in exchange.reply.runs}
    meant = {key for exchange in submits for key in _distinct_keys(exchange.request)}
    if len(runs) > len(meant):
        faults.append(f"there are {len(runs)} runs of {len(meant)} distinct submits: a repeat has run again")
    for exchange in submits:
        if not exchange.was_delivered:
            faults += _faults_of_lost(exchange, exchanges, ended_well=ended_well)
    return faults


def submitted_baskets(exchanges: Iterable[Exchange]) -> set[str]:
    """Return the names of the baskets that were submitted."""
    submits = (exchange.request for exchange in exchanges if exchange.request.kind is Kind.SUBMIT)
    return {str(item["basket_name"]) for request in submits for item in request.items if "basket_name" in item}


def uses_consumers(exchanges: Iterable[Exchange]) -> bool:
    """Return whether a consumer of the feed was used, whose cursor two runs of the command would share."""
    return any(exchange.request.path.startswith("/consumers/") for exchange in exchanges)


def _missing_keys(submits: Iterable[Exchange]) -> Iterator[str]:
    for exchange in submits:
        if None in exchange.request.keys:
            where = ", neither as a header nor in each item" if exchange.request.is_batch else ""
            yield f"POST {exchange.request.path} has no Idempotency-Key{where}"


def _distinct_keys(request: RecordedRequest) -> Iterator[tuple[str, int]]:
    """Yield what identifies each run of a submit: its key, or its content if it has none.

    A key of a whole batch makes a run for each item.
    """
    for index, item in enumerate(request.items or [{}]):
        own = item.get("idempotency_key") if request.is_batch else None
        header = request.headers.get("idempotency-key")
        if own is not None:
            yield str(own), 0
        else:
            yield header or str(request.content), index + 1 if request.is_batch else 0


def _faults_of_lost(lost: Exchange, exchanges: Sequence[Exchange], *, ended_well: bool) -> Iterator[str]:
    """Yield the fault if a submit whose reply was lost was not sent again in the same way."""
    later = [exchange for exchange in exchanges if exchange.request.arrived_at > lost.request.arrived_at]
    repeats = [exchange.request for exchange in later if exchange.request.kind is Kind.SUBMIT]
    keys = {key for request in repeats for key in request.keys}
    if None in lost.request.keys or keys.issuperset(lost.request.keys):
        return
    if any(request.content == lost.request.content for request in repeats):
        yield f"after a lost reply POST {lost.request.path} was sent again with another Idempotency-Key: keep the first"
        return
    asked = {subject for exchange in later for subject in exchange.request.subjects}
    made = set(lost.reply.runs) if lost.reply else set[str]()
    if ended_well and not (made and made <= asked):
        yield f"after a lost reply POST {lost.request.path} was not sent again, so nobody waits for its run"


def _was_granted(request: RecordedRequest, reply: RecordedReply) -> bool:
    """Return whether a long poll was held: the server says so if the wait was in ``Prefer``; else its duration does."""
    lasted_s = reply.replied_at - request.arrived_at
    return reply.was_granted or lasted_s >= min(_HELD_MIN_S, request.hold_s)


def _too_early(request: RecordedRequest, hint: _Hint, *, was_refused: bool) -> TooEarly:
    name = f"{request.method} {request.path}"
    return TooEarly(name, request.arrived_at - hint.replied_at, hint.pause_s, was_refused)
