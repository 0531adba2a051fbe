"""gunicorn's settings, for ``gunicorn -c python:api.gunicorn api.wsgi:app``; read once, in the master.

Whatever is wrong is said in one line and ends the process: settings with 78 (EX_CONFIG), a taken port with 69
(EX_UNAVAILABLE), before gunicorn would try five times. prometheus_client must not have been imported before the
variable for its files is set, so nothing here imports it.
"""

from __future__ import annotations

import atexit
import os
import shutil
import socket
import sys
import tempfile
from pathlib import Path
from typing import Final, NoReturn

from shared.errors import SettingsError
from shared.settings import Settings
from shared.telemetry.gunicorn_logger import JsonLogger

_METRICS_DIR_VARIABLE: Final = "PROMETHEUS_MULTIPROC_DIR"
# Set by a master that gives way to a new one (SIGUSR2): it still listens, and its directory will go with it.
_IS_UPGRADE: Final = "GUNICORN_PID" in os.environ


def _exit_with_message(code: int, text: str) -> NoReturn:
    for line in text.splitlines():
        sys.stderr.write(f"bucket api: {line}\n")
    sys.exit(code)


def _load_settings() -> Settings:
    try:
        return Settings.from_environ()
    except SettingsError as wrong:
        _exit_with_message(os.EX_CONFIG, wrong.message)


def _check_address(host: str, port: int) -> None:
    """Leave with one line where nobody could listen at ``host`` and ``port``.

    Without SO_REUSEPORT on the probe an address that another Bucket shares counts as taken too: two that answer by
    turns on one port, each with its own databases, would be worse than none.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as wrong:
        _exit_with_message(
            os.EX_UNAVAILABLE, f"cannot listen on {host}:{port}: {wrong.strerror}; set HOST or PORT to another"
        )


def _empty_metrics_directory() -> None:
    """See that the workers' figures have an empty directory: files of dead processes would count for ever."""
    told = os.environ.get(_METRICS_DIR_VARIABLE)
    if told and not _IS_UPGRADE:
        Path(told).mkdir(parents=True, exist_ok=True)
        for left in Path(told).glob("*.db"):
            left.unlink(missing_ok=True)
        return
    made = os.environ[_METRICS_DIR_VARIABLE] = tempfile.mkdtemp(prefix="bucket-metrics-")
    atexit.register(_remove_directory, made, os.getpid())


def _remove_directory(directory: str, owner: int) -> None:
    if os.getpid() == owner:  # a worker that ends must leave its siblings' files alone
        shutil.rmtree(directory, ignore_errors=True)


_loaded_settings = _load_settings()
if not _IS_UPGRADE:
    _check_address(_loaded_settings.host, _loaded_settings.port)
_empty_metrics_directory()

bind = (
    f"[{_loaded_settings.host}]:{_loaded_settings.port}"
    if ":" in _loaded_settings.host
    else f"{_loaded_settings.host}:{_loaded_settings.port}"
)
worker_class = "api.gunicorn_worker.ProblemWorker"  # gthread; its own error replies are problem+json
workers = _loaded_settings.api_processes
threads = _loaded_settings.api_threads
reuse_port = True
backlog = 2048
preload_app = False  # MongoDB's client must be made after the fork
control_socket_disable = True  # it would lie at one path in $HOME for every instance
timeout = 60  # of a worker's heartbeat, not of a request
graceful_timeout = 30
keepalive = 75
worker_tmp_dir = "/dev/shm" if os.path.isdir("/dev/shm") else None  # noqa: S108, PTH112  a heartbeat must not wait for a disk
limit_request_line = 8190
limit_request_fields = 100
limit_request_field_size = 8190
accesslog = None  # api/http/middleware.py writes a better one
loglevel = _loaded_settings.log_level.lower()
logger_class = JsonLogger
proc_name = "bucket-api"
