"""Send the payloads of the failure log again; a line is removed only after Core took its payload."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from bucket_client.connectors.connector_flows import CoreCall, drive
from bucket_client.connectors.connector_metrics import REGISTRY
from bucket_client.connectors.connector_settings import ConnectorSettings
from bucket_client.connectors.core_delivery import CoreRetries, Delivered, deliver, headers_of
from bucket_client.connectors.core_http import CoreClient
from bucket_client.connectors.failure_log import FailureLog, LoggedSend
from bucket_client.connectors.json_text import encode_payload

REWRITES_MAX: Final = 64
"""A resend rewrites the log about so often at most: after each line if there are few, else after several."""

logger = logging.getLogger("bucket_client.connectors")


@dataclass(frozen=True, slots=True)
class ResendReport:
    """What a resend did: payloads sent, payloads that failed again, and damaged lines; the last two stay in the log."""

    sent: int = 0
    failed: int = 0
    unreadable: int = 0


def resend_failed(*, settings: ConnectorSettings | None = None) -> ResendReport:
    """Call Core once for each payload of the failure log, oldest first, and remove the lines that it took.

    Each call has the ``Idempotency-Key`` of the first send. Lines that are appended meanwhile wait for the next resend.
    If another resend runs, this one returns at once and has done nothing: all counts are 0. A process that is killed
    loses no line; the next resend sends again what Core took and what was not yet removed.
    """
    settings = settings or ConnectorSettings.from_environment()
    log = FailureLog(settings.failed_log)
    with log.resending() as is_held:
        if not is_held:
            logger.info("nothing is resent: another resend runs, or there is no %s", settings.failed_log)
            return ResendReport()
        content = log.read()
        for number in content.unreadable:
            logger.warning(
                "line %d of %s is damaged and stays: repair or remove it by hand", number, settings.failed_log
            )
        group_size = -(-len(content.sends) // REWRITES_MAX) or 1
        with CoreClient(settings) as core:
            sent = sum(
                _resend_group(content.sends[start : start + group_size], log, core, settings)
                for start in range(0, len(content.sends), group_size)
            )
    return ResendReport(sent, len(content.sends) - sent, len(content.unreadable))


def _resend_group(group: Sequence[LoggedSend], log: FailureLog, core: CoreClient, settings: ConnectorSettings) -> int:
    """Send a group and remove the lines that were sent; return their number."""
    sent: list[LoggedSend] = []
    try:
        for logged in group:
            call = CoreCall(encode_payload(logged.payload), headers_of(logged.idempotency_key))
            verdict = drive(deliver(call, CoreRetries(max_calls=1), settings), core.perform)
            REGISTRY.count("resends", "sent" if isinstance(verdict, Delivered) else "failed")
            if isinstance(verdict, Delivered):
                sent.append(logged)
            else:
                logger.warning("a payload of %s failed again: %s", settings.failed_log, verdict.reason)
    finally:
        log.remove(sent)
    return len(sent)
