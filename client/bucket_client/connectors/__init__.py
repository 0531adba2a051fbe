"""Connectors between Bucket and Core: send payloads, save them to files, and keep what Core did not take.

They read the ``BHIV_*`` variables at each call and use nothing of the rest of the client. They need a POSIX system,
for its file locks.
"""

from __future__ import annotations

from bucket_client.connectors.bucket_files import save_to_bucket, save_to_bucket_async
from bucket_client.connectors.connector_checks import CheckResult, check_connectors
from bucket_client.connectors.connector_errors import (
    BadConnectorSetting,
    ConnectorError,
    CoreSendFailed,
    FilenameRefused,
    PayloadNotJson,
)
from bucket_client.connectors.connector_metrics import (
    ConnectorMetrics,
    DurationHistogram,
    connector_metrics,
    connector_metrics_text,
)
from bucket_client.connectors.connector_settings import ConnectorSettings
from bucket_client.connectors.forwarding import (
    FinishedRun,
    ForwardReport,
    RunsBaskets,
    RunsBasketsAsync,
    run_and_forward,
    run_and_forward_async,
)
from bucket_client.connectors.resending import ResendReport, resend_failed
from bucket_client.connectors.sending import (
    SendOutcome,
    send_many_to_core,
    send_many_to_core_async,
    send_to_core,
    send_to_core_async,
)

__all__ = [
    "BadConnectorSetting",
    "CheckResult",
    "ConnectorError",
    "ConnectorMetrics",
    "ConnectorSettings",
    "CoreSendFailed",
    "DurationHistogram",
    "FilenameRefused",
    "FinishedRun",
    "ForwardReport",
    "PayloadNotJson",
    "ResendReport",
    "RunsBaskets",
    "RunsBasketsAsync",
    "SendOutcome",
    "check_connectors",
    "connector_metrics",
    "connector_metrics_text",
    "resend_failed",
    "run_and_forward",
    "run_and_forward_async",
    "save_to_bucket",
    "save_to_bucket_async",
    "send_many_to_core",
    "send_many_to_core_async",
    "send_to_core",
    "send_to_core_async",
]
