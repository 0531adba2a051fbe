"""Tracing by OpenTelemetry (docs/tracing.md): off, and nothing of OpenTelemetry is imported, without its settings.

``tracer`` is the seam that the other packages use, ``run_spans`` decides purely which spans a saved decision ends,
``trace_context`` derives their ids, and only ``span_export`` imports OpenTelemetry.
"""
