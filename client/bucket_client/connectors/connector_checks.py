"""Check the connectors without Core: a file in the bucket folder, and a send that must fail and be logged."""

from __future__ import annotations

import socket
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from bucket_client.connectors.bucket_files import save_to_bucket
from bucket_client.connectors.connector_errors import BadConnectorSetting, CoreSendFailed
from bucket_client.connectors.connector_settings import ConnectorSettings
from bucket_client.connectors.failure_log import FailureLog
from bucket_client.connectors.json_text import decode_json
from bucket_client.connectors.resending import ResendReport, resend_failed
from bucket_client.connectors.sending import send_to_core

_CALLS: Final = 3
_BACKOFF_S: Final = 0.01


@dataclass(frozen=True, slots=True)
class CheckResult:
    """The result of one check; ``detail`` says what was seen, or what is wrong."""

    name: str
    passed: bool
    detail: str


def check_connectors(*, settings: ConnectorSettings | None = None) -> list[CheckResult]:
    """Check the settings, the bucket folder, the retries, the failure log and the resend.

    Core is not called: the sends go to a port of this machine where nothing listens, without the token, and their
    failure log is in a temporary folder. What is wrong is a result, not an exception.
    """
    try:
        settings = settings or ConnectorSettings.from_environment()
    except BadConnectorSetting as error:
        return [CheckResult("settings", passed=False, detail=str(error))]
    results = [
        CheckResult("settings", passed=True, detail=f"Core is at {settings.public_url}"),
        _checked("bucket folder", lambda: _check_bucket_folder(settings)),
    ]
    with tempfile.TemporaryDirectory(prefix="bucket-connectors-") as folder, _closed_port() as port:
        trial = replace(
            settings,
            core_url=f"http://127.0.0.1:{port}/bhiv/core",
            core_token=None,
            failed_log=Path(folder) / "failed_core_sends.log",
        )
        payload = {"check": uuid.uuid4().hex}
        results += [
            _checked("retry", lambda: _check_retry(payload, trial)),
            _checked("failure log", lambda: _check_failure_log(payload, trial)),
            _checked("resend", lambda: _check_resend(trial)),
        ]
    return results


def _checked(name: str, check: Callable[[], str]) -> CheckResult:
    try:
        return CheckResult(name, passed=True, detail=check())
    except Exception as error:  # noqa: BLE001 -- a check reports
        return CheckResult(name, passed=False, detail=f"{type(error).__name__}: {error}")


def _check_bucket_folder(settings: ConnectorSettings) -> str:
    payload = {"check": uuid.uuid4().hex}
    path = save_to_bucket(payload, f".check-{payload['check']}.json", settings=settings)
    try:
        _require(decode_json(path.read_bytes()) == payload, f"{path} does not hold what was written")
    finally:
        path.unlink()
    return f"a file in {path.parent} was written, read and removed"


def _check_retry(payload: dict[str, Any], trial: ConnectorSettings) -> str:
    try:
        send_to_core(payload, _CALLS, _BACKOFF_S, settings=trial)
    except CoreSendFailed as error:
        _require(error.calls == _CALLS, f"Core was called {error.calls} times and not {_CALLS} times")
        return f"a send to a port without a server failed after {_CALLS} calls, as it must"
    raise RuntimeError("a send to a port without a server did not fail")


def _check_failure_log(payload: dict[str, Any], trial: ConnectorSettings) -> str:
    logged = [send.payload for send in FailureLog(trial.failed_log).read().sends]
    _require(logged == [payload], f"the failure log holds {len(logged)} payloads and not the one that failed")
    return "the failure log holds the payload that was not sent"


def _check_resend(trial: ConnectorSettings) -> str:
    report = resend_failed(settings=trial)
    _require(report == ResendReport(failed=1), f"the resend says {report}")
    _require(len(FailureLog(trial.failed_log).read().sends) == 1, "the resend lost the payload")
    return "a payload that fails again stays in the failure log"


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise RuntimeError(otherwise)


@contextmanager
def _closed_port() -> Iterator[int]:
    """Yield a port of loopback that refuses connections: it is bound, so nobody can take it, and does not listen."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port: int = bound.getsockname()[1]
        yield port
