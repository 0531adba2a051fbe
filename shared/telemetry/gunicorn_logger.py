"""Sends gunicorn's own log lines, of the master and of its workers, where all others go."""

from __future__ import annotations

from typing import Any

from gunicorn.glogging import Logger  # type: ignore[import-untyped]

from shared.telemetry.logging_setup import configure_logging


class JsonLogger(Logger):  # type: ignore[misc]
    """gunicorn's logger without handlers of its own: its lines rise to the root's."""

    def setup(self, cfg: Any) -> None:
        """Set logging up at ``cfg.loglevel``; gunicorn calls this in the master, and again at each reload."""
        super().setup(cfg)
        configure_logging("api", cfg.loglevel)
        for log in (self.error_log, self.access_log):
            log.handlers.clear()
            log.propagate = True
