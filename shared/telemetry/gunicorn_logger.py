"""gunicorn's logger: sends the log lines of its master and workers to the same output as all others."""

from __future__ import annotations

from typing import Any

from gunicorn.glogging import Logger  # type: ignore[import-untyped]

from shared.telemetry.logging_setup import configure_logging


class JsonLogger(Logger):  # type: ignore[misc]
    """gunicorn's logger without handlers of its own: its lines propagate to the root logger."""

    def setup(self, cfg: Any) -> None:
        """Configure logging at ``cfg.loglevel``; gunicorn calls this in the master, and again at each reload."""
        super().setup(cfg)
        configure_logging("api", cfg.loglevel)
        for log in (self.error_log, self.access_log):
            log.handlers.clear()
            log.propagate = True
