#!/usr/bin/env bash
# OpenTelemetry's BatchSpanProcessor.force_flush(timeout_millis) waits as long as the exporter takes, and says True.
#
# Expected: force_flush(timeout_millis=200) returns after 200 ms at the latest, with False if not all spans were exported
# by then, as the specification of the tracing SDK describes ForceFlush: callers can bound it.
#
# Seen (opentelemetry-sdk 1.45.2): the argument is not used. With an exporter that takes 2 s, the call takes 2 s and returns
# True. BatchSpanProcessor.shutdown() takes no timeout at all.
#
# Why a user of Bucket may meet it: a worker flushes its spans before it ends, within the time that it has to drain. With
# a receiver that hangs, the exporter's own timeout (OTEL_EXPORTER_OTLP_TIMEOUT) times the batches is what it waits, not
# what was passed. So Bucket flushes in a thread that it does not wait for longer than a second.
#
# Output seen:
#   opentelemetry-sdk 1.45.2
#   force_flush(timeout_millis=200) with an exporter that takes 2 s: 2.0 s, True
#   the argument has no effect
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check opentelemetry-sdk==1.45.2

"$folder/venv/bin/python" - <<'PROGRAM'
import time
from importlib.metadata import version

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

EXPORT_S, TIMEOUT_MS = 2.0, 200


class SlowExporter(SpanExporter):
    def export(self, spans):
        time.sleep(EXPORT_S)
        return SpanExportResult.SUCCESS


provider = TracerProvider()
processor = BatchSpanProcessor(SlowExporter(), schedule_delay_millis=60_000)
provider.add_span_processor(processor)
with provider.get_tracer("finding").start_as_current_span("one span"):
    pass

began = time.monotonic()
said = processor.force_flush(timeout_millis=TIMEOUT_MS)
took_s = time.monotonic() - began

print("opentelemetry-sdk", version("opentelemetry-sdk"))
print(f"force_flush(timeout_millis={TIMEOUT_MS}) with an exporter that takes {EXPORT_S:g} s: {took_s:.1f} s, {said}")
if took_s < EXPORT_S * 0.9 or said is not True:
    raise SystemExit("the timeout is obeyed now")
print("the argument has no effect")
PROGRAM
