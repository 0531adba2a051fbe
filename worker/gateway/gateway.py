"""The gateway of one attempt of a step: ``ctx.http``.

A call passes, in this order: the list of hosts, the circuit breaker and rate limit of its provider, the connection to
a checked address, and, if it fails in a way that may pass, the retry budget. Nothing is imported or opened before the
first call.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial, partialmethod
from typing import TYPE_CHECKING, Any, Final

import stamina

from shared.live.providers.call_policy import CallPermit, CallReport, Outcome
from shared.live.providers.provider_metrics import NOT_LISTED
from shared.outbound_hosts import Origin, OutboundHosts, origin_of_url
from worker.gateway.gateway_errors import GatewayError, gateway_error
from worker.gateway.last_answer import LastAnswer
from worker.gateway.outbound import Outbound
from worker.gateway.retries import CRITICAL, NO_RETRIES, NORMAL, Retries
from worker.gateway.step_facts import StepFacts

if TYPE_CHECKING:
    import httpx2

    from worker.gateway.response import GatewayResponse
    from worker.gateway.sender import Sender

TIMEOUT_S: Final = 30.0
REDIRECTS_MAX: Final = 5
_READS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_OUTCOMES: Final[Mapping[str, Outcome]] = {
    "network": "error",
    "certificate": "error",
    "server_error": "error",
    "rate_limited": "error",
    "timeout": "timeout",
    "not_allowed": "abandoned",
    "cancelled": "abandoned",
    "invalid_request": "abandoned",
}


class _Repeat(Exception):
    """Raised to make stamina begin the next attempt."""


@dataclass(slots=True)
class _Call:
    """One call of an agent, with all its attempts."""

    request: httpx2.Request
    auth: Any
    timeout_s: float
    follow_redirects: bool
    is_critical: bool
    retries: Retries


class Gateway:
    """Makes the HTTP calls of one attempt of a step; agents may use it from several threads."""

    def __init__(
        self,
        outbound: Outbound,
        step: StepFacts,
        log: Callable[..., None],
        cancel: threading.Event,
        remaining_s: Callable[[], float],
    ) -> None:
        """``log`` writes a line of the run's log; ``remaining_s`` returns the seconds until the step's deadline."""
        self._outbound = outbound
        self._step = step
        self._log = log
        self._cancel = cancel
        self._remaining_s = remaining_s
        self._lock = threading.Lock()
        self._writes = 0
        self._opened: tuple[OutboundHosts, Sender] | None = None
        self._opened_by = 0

    def request(
        self,
        method: str,
        url: str,
        *,
        critical: bool = False,
        fallback: bool = False,
        retry: bool = True,
        idempotency_key: str | None = None,
        timeout: float = TIMEOUT_S,
        follow_redirects: bool = True,
        auth: Any = None,
        **options: Any,
    ) -> GatewayResponse:
        """Send a request and return the response, read; raises GatewayError.

        ``options`` are httpx's params, headers, cookies, json, data, files and content.
        """
        if fallback and method.upper() != "GET":
            raise ValueError("fallback=True is for GET alone: an old answer stands for no write")
        if timeout <= 0:
            raise ValueError(f"timeout={timeout!r} must be a number of seconds over 0")
        if not fallback:
            self._fail_before_loading(url)
        policy = (CRITICAL if critical else NORMAL) if retry else NO_RETRIES
        request = self._open()[1].build(method, url, options)
        answers = LastAnswer(self._outbound.breaker, self._step, request, auth) if fallback else None
        self._add_headers(request, idempotency_key)
        retries = Retries(policy, self._remaining_s, self._log)
        call = _Call(request, auth, timeout, follow_redirects, critical, retries)
        try:
            response = self._send_with_retries(call)
        except GatewayError as error:
            stale = answers.read(error) if answers is not None else None
            if stale is None:
                raise
            self._log(
                f"an old answer is used: {error.text}",
                level="warning",
                provider=error.provider,
                reason=error.kind,
                age_s=round(stale.stale_s or 0.0, 1),
            )
            return stale
        if answers is not None:
            answers.keep(response)
        return response

    get = partialmethod(request, "GET")
    post = partialmethod(request, "POST")
    put = partialmethod(request, "PUT")
    patch = partialmethod(request, "PATCH")
    delete = partialmethod(request, "DELETE")

    def _fail_before_loading(self, url: str) -> None:
        """Fail at once if the circuit is open: to load the HTTP library takes a quarter of a second."""
        origin = None if self._outbound.is_loaded else origin_of_url(str(url))
        if origin is not None and (wait_s := self._outbound.breaker.open_for_s(origin.provider)):
            self._outbound.breaker.count_error(origin.provider, "circuit_open")
            raise _circuit_open(origin.provider, wait_s)

    def _open(self) -> tuple[OutboundHosts, Sender]:
        with self._lock:
            if self._opened is None or self._opened_by != os.getpid():  # a process that the agent has forked
                self._opened_by = os.getpid()
                hosts = self._outbound.hosts.with_urls_of(self._step.settings.values())
                self._opened = hosts, self._outbound.new_sender()
            return self._opened

    def _add_headers(self, request: httpx2.Request, idempotency_key: str | None) -> None:
        if request.method not in _READS:
            request.headers.setdefault("Idempotency-Key", self._next_key(idempotency_key))
        request.headers.setdefault("X-Request-ID", self._step.request_id)
        if self._step.traceparent is not None:
            request.headers.setdefault("traceparent", self._step.traceparent)
        if request.headers.get("User-Agent", "").startswith("python-httpx"):
            request.headers["User-Agent"] = self._outbound.user_agent

    def _next_key(self, own_key: str | None) -> str:
        with self._lock:
            self._writes += 1
            if own_key is not None:
                return own_key
            key = self._step.idempotency_key
            return key if self._writes == 1 else f"{key}:{self._writes}"

    def _send_with_retries(self, call: _Call) -> GatewayResponse:
        # Errors do not pass through stamina: it would keep them, with all that their frames hold, in reference cycles.
        outcome: GatewayResponse | GatewayError = gateway_error("cancelled", "no attempt was made")
        attempts_max = call.retries.attempts_max
        with suppress(_Repeat):  # stamina raises it if its own count is over, or if it is switched off
            for attempt in stamina.retry_context(on=_Repeat, attempts=attempts_max, timeout=None, wait_max=0):
                with attempt:
                    outcome = self._response_or_error(call)
                    if isinstance(outcome, GatewayError) and call.retries.decide(outcome):
                        raise _Repeat(str(outcome))
        if not isinstance(outcome, GatewayError):
            return outcome
        try:
            raise outcome
        finally:
            del outcome  # its traceback holds this frame

    def _response_or_error(self, call: _Call) -> GatewayResponse | GatewayError:
        try:
            self._wait(call.retries.begin())
            return self._attempt(call)
        except GatewayError as error:
            return error

    def _attempt(self, call: _Call) -> GatewayResponse:
        """Send the request and follow its redirects, all within the timeout."""
        from worker.gateway.sender import redirected  # not before the first call: it imports the HTTP library

        due_at = time.monotonic() + min(call.timeout_s, self._remaining_s())
        request, auth = call.request, call.auth
        for _ in range(REDIRECTS_MAX + 1):
            response = self._exchange(call, request, auth, due_at)
            if response.next_request is None or not call.follow_redirects:
                return response
            request, auth = redirected(request, response.next_request), None
        provider = response.provider
        raise gateway_error("bad_response", f"{provider} redirects more than {REDIRECTS_MAX} times", provider=provider)

    def _exchange(self, call: _Call, request: httpx2.Request, auth: Any, due_at: float) -> GatewayResponse:
        """Send one request; its outcome is reported to the breaker."""
        hosts, sender = self._open()
        origin = Origin.of(request.url.scheme, request.url.raw_host.decode(), request.url.port)
        if not hosts.allows(origin):
            raise self._not_allowed(origin)
        provider = origin.provider
        permit = self._admit(provider, call, due_at)
        started_at = time.monotonic()
        error: GatewayError | None = None
        outcome: Outcome = "abandoned"
        limit_s, status = 0.0, None
        end_span = None if self._step.trace is None else self._step.trace.begin_call(request, provider)
        try:
            self._wait_for_slot(provider, permit.wait_s, due_at)
            started_at = time.monotonic()
            limit_s = due_at - started_at
            response = sender.send(request, auth, provider, limit_s)
            response.on_bad_json = partial(self._outbound.breaker.count_error, provider, "bad_response")
            outcome, status = "ok", response.status_code
        except GatewayError as raised:
            # Without time left nothing was sent: that says nothing about the provider.
            error, outcome = raised, _OUTCOMES.get(raised.kind, "ok") if limit_s > 0 else "abandoned"
            raise
        except Exception:
            raise
        except BaseException:
            self._outbound.drop_connections()  # an interrupt may have come anywhere in the library
            raise
        finally:
            wants_retry = error is not None and call.retries.plan(error)
            is_repeat = call.retries.attempt > 1
            report = CallReport(provider, outcome, call.is_critical, is_repeat, wants_retry, permit.probe)
            seconds = time.monotonic() - started_at
            verdict = self._outbound.breaker.record(report, seconds, error.kind if error else "")
            call.retries.may_retry = verdict.may_retry
            if end_span is not None:
                end_span(error.status if error else status, error.kind if error else "")
            del error  # its traceback holds this frame: a cycle would keep it all until the garbage collector comes
        return response

    def _admit(self, provider: str, call: _Call, due_at: float) -> CallPermit:
        """Ask the breaker and the rate limit; raises GatewayError if the call may not be made now."""
        lease_s = max(due_at - time.monotonic(), 0.0) + 1.0
        permit = self._outbound.breaker.admit(provider, lease_s=lease_s, is_critical=call.is_critical)
        if not permit.refusal:
            return permit
        if permit.refusal == "circuit_open":
            raise _circuit_open(provider, permit.wait_s)
        raise _no_slot(provider, permit.wait_s)

    def _wait_for_slot(self, provider: str, wait_s: float, due_at: float) -> None:
        if 0 < wait_s >= due_at - time.monotonic():  # a wait in vain
            raise _no_slot(provider, wait_s)
        self._wait(wait_s)

    def _not_allowed(self, origin: Origin) -> GatewayError:
        self._outbound.breaker.count_error(NOT_LISTED, "not_allowed")
        if origin.scheme not in ("http", "https"):
            return gateway_error("not_allowed", "only URLs with http or https may be called")
        text = f"{origin} may not be called: it is neither in BUCKET_OUTBOUND_HOSTS nor a setting of the agent"
        return gateway_error("not_allowed", text, provider=origin.provider)

    def _wait(self, seconds: float) -> None:
        if self._cancel.wait(seconds) if seconds > 0 else self._cancel.is_set():
            raise gateway_error("cancelled", "the step is asked to stop")


def _circuit_open(provider: str, wait_s: float) -> GatewayError:
    text = f"{provider} failed too often and is not called; it is tried again in {wait_s:.1f} s"
    return gateway_error("circuit_open", text, provider=provider, retry_after_s=wait_s)


def _no_slot(provider: str, wait_s: float) -> GatewayError:
    text = f"the rate limit of {provider} has a slot in {wait_s:.1f} s"
    return gateway_error("rate_limit_local", text, provider=provider, retry_after_s=wait_s)
