"""Structured logging: JSON lines on stdout, for our loggers and the libraries'; a log call never raises.

On a terminal the lines are formatted for people. structlog's loggers write directly to the sink; the loggers of the
standard library (gunicorn, celery, pymongo) use the same processors. Tracebacks are in the log and nowhere else.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import MutableMapping
from typing import Any, Final, TextIO

import structlog

from shared.domain.access.key_format import without_secrets
from shared.telemetry.lenient_json import encode_lenient

# Below a warning, HTTP libraries log whole URLs, which may hold keys.
_QUIET_LIBRARIES: Final = ("pymongo", "urllib3", "kombu", "httpx2", "httpcore2")
FIELD_MAX_CHARS: Final = 16_384
_LEADING_FIELDS: Final = ("timestamp", "level", "service", "event")  # in the order in which people look for them


def configure_logging(service: str, level: str, *, stream: TextIO | None = None) -> None:
    """Configure logging: lines of ``level`` and above go to stdout (or ``stream``), with the field ``service``.

    It may be called again, for example after a fork: the last call wins.
    """
    level_number = logging.getLevelNamesMapping()[level.upper()]
    sink = _Sink(stream)
    render = _render_console if sink.is_terminal() else _render_json
    processors: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        lambda _, __, line: {**line, "service": service},
        structlog.processors.StackInfoRenderer(),
    ]
    structlog.configure(
        processors=[*processors, render],
        wrapper_class=structlog.make_filtering_bound_logger(level_number),
        logger_factory=lambda *_: sink,
        cache_logger_on_first_use=False,  # a logger made before this call must use it too
    )
    root = logging.getLogger()
    root.handlers[:] = [_Handler(sink, processors, render)]
    root.setLevel(level_number)
    for name in _QUIET_LIBRARIES:
        logging.getLogger(name).setLevel(max(level_number, logging.WARNING))
    logging.captureWarnings(capture=True)


class _Sink:
    """Writes whole lines; drops them if stdout is closed or full, because the work is more important than its log.

    It is also the logger that structlog wraps: the method of each level writes one line.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        self._lock = threading.Lock()

    def is_terminal(self) -> bool:
        try:
            return (self._stream or sys.stdout).isatty()
        except Exception:  # noqa: BLE001  stdout may be None or closed
            return False

    def write(self, line: str) -> None:
        try:
            stream = self._stream or sys.stdout
            with self._lock:
                # A key that was sent in a path or as some other id, which libraries log too.
                stream.write(without_secrets(line) + "\n")
                stream.flush()
        except Exception:  # noqa: BLE001, S110  logging never breaks the work, and the error cannot be logged
            pass

    msg = debug = info = warning = error = critical = exception = fatal = log = write


class _Handler(logging.Handler):
    """Passes records of the standard library's logging through our processors."""

    def __init__(
        self, sink: _Sink, steps: list[structlog.typing.Processor], render: structlog.typing.Processor
    ) -> None:
        super().__init__()
        self._sink, self._steps, self._render = sink, steps, render

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line: Any = {"event": _message(record), "logger": record.name}
            if record.exc_info:
                line["exc_info"] = record.exc_info
            for step in (*self._steps, self._render):
                line = step(None, record.levelname.lower(), line)
            self._sink.write(line)
        except Exception:  # noqa: BLE001  logging never breaks the work, as in the sink
            self._sink.write(f'{{"level":"error","event":"a log line of {record.name!r} could not be written"}}')


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception:  # noqa: BLE001  a format that does not match its arguments, in foreign code
        return f"{record.msg} {record.args}"


def _render_json(logger: Any, method: str, line: MutableMapping[str, Any]) -> str:
    try:
        if line.get("exc_info"):
            line = structlog.processors.format_exc_info(logger, method, line)
        line = {name: _cut(value) for name, value in line.items()}
        return encode_lenient({**{name: line.pop(name, None) for name in _LEADING_FIELDS}, **line}).decode()
    except Exception as error:  # noqa: BLE001  for example an exception whose __str__ raises
        return encode_lenient({"level": "error", "event": "log.unwritable", "kind": type(error).__name__}).decode()


def _cut(value: Any) -> Any:
    """Return a text of at most :data:`FIELD_MAX_CHARS`: of a longer one the beginning and the end."""
    if not isinstance(value, str) or len(value) <= FIELD_MAX_CHARS:
        return value
    half = FIELD_MAX_CHARS // 2
    return f"{value[:half]} … (cut: {len(value) - 2 * half} of {len(value)} characters) … {value[-half:]}"


def _render_console(logger: Any, method: str, line: MutableMapping[str, Any]) -> str:
    try:
        return str(_cut(str(_CONSOLE(logger, method, line))))
    except Exception:  # noqa: BLE001  logging never breaks the work
        return _render_json(logger, method, line)


_CONSOLE: Final = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
