"""gunicorn's settings, for ``gunicorn -c python:api.gunicorn api.wsgi:app``; read once, in the master.

An error is printed in one line and ends the process: bad settings with exit code 78 (EX_CONFIG), a port in use with 69
(EX_UNAVAILABLE), before gunicorn would try five times. prometheus_client must not be imported before the variable for
its files is set, so this module does not import it.
"""

from __future__ import annotations

import atexit
import gc
import os
import resource
import shutil
import socket
import sys
import tempfile
from pathlib import Path
from typing import Any, Final, NoReturn

from gevent import monkey  # type: ignore[import-untyped]

import api.cooperative  # noqa: F401  before all that is not of the standard library
from shared.errors import SettingsError
from shared.settings import Settings
from shared.telemetry.gunicorn_logger import JsonLogger

_METRICS_DIR_VARIABLE: Final = "PROMETHEUS_MULTIPROC_DIR"
_CONNECTIONS_MAX: Final = 1_000
# Whether an old master started this one to replace it without downtime (SIGUSR2). The old one still listens, and it
# removes its own directory of metrics when it ends.
_IS_UPGRADE: Final = "GUNICORN_PID" in os.environ
if _IS_UPGRADE and not os.environ.get("GUNICORN_FD"):
    # With reuse_port there is no socket to hand over, but gunicorn 27 ends on the empty list; it uses no entry of it.
    os.environ["GUNICORN_FD"] = "0"


def _exit_with_message(code: int, text: str) -> NoReturn:
    for line in text.splitlines():
        sys.stderr.write(f"bucket api: {line}\n")
    sys.exit(code)


def _load_settings() -> Settings:
    try:
        return Settings.from_environ()
    except SettingsError as error:
        _exit_with_message(os.EX_CONFIG, error.message)


def _check_address(host: str, port: int) -> None:
    """Exit with a message of one line if it is not possible to listen at ``host`` and ``port``.

    The probe does not set SO_REUSEPORT, so that an address that another Bucket could share counts as taken too: two
    that reply in turn on one port, each with its own databases, would be worse than none.
    """
    try:
        # gevent's own would start threads for names, and no fork copies threads.
        look_up = monkey.get_original("socket", "getaddrinfo")
        family, kind, protocol, _, address = look_up(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        _exit_with_message(
            os.EX_UNAVAILABLE, f"cannot listen on {host}:{port}: {error.strerror}; set HOST or PORT to another"
        )


def _empty_metrics_directory() -> None:
    """Prepare an empty directory for the workers' metrics: files of dead processes would be counted for ever.

    During an upgrade the variable names the directory of the old master, whose workers still write to it: this master
    creates its own.
    """
    configured = os.environ.get(_METRICS_DIR_VARIABLE)
    if configured and not _IS_UPGRADE:
        Path(configured).mkdir(parents=True, exist_ok=True)
        for stale_file in Path(configured).glob("*.db"):
            stale_file.unlink(missing_ok=True)
        return
    directory = os.environ[_METRICS_DIR_VARIABLE] = tempfile.mkdtemp(prefix="bucket-metrics-")
    atexit.register(_remove_directory, directory, os.getpid())


def _remove_directory(directory: str, owner: int) -> None:
    if os.getpid() == owner:  # a worker that ends must not remove the files of the others
        shutil.rmtree(directory, ignore_errors=True)


def _allow_open_files(number: int) -> None:
    """Raise the limit of open files to ``number``, as far as the machine lets a process do so itself."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = number if hard == resource.RLIM_INFINITY else min(number, hard)
    if soft != resource.RLIM_INFINITY and soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))


def child_exit(server: Any, worker: Any) -> None:  # noqa: ARG001  gunicorn calls it in the master
    """Forget what a process that has ended said of the present, such as how many requests it held."""
    for file in Path(os.environ[_METRICS_DIR_VARIABLE]).glob(f"gauge_live*_{worker.pid}.db"):
        file.unlink(missing_ok=True)


def when_ready(server: Any) -> None:  # noqa: ARG001  gunicorn calls it in the master, before the first fork
    """Exempt all that is loaded from garbage collection: a collection writes to each object, which copies its page."""
    gc.collect()
    gc.freeze()


_loaded_settings = _load_settings()
if not _IS_UPGRADE:
    _check_address(_loaded_settings.host, _loaded_settings.port)
_empty_metrics_directory()

_host = f"[{_loaded_settings.host}]" if ":" in _loaded_settings.host else _loaded_settings.host
bind = f"{_host}:{_loaded_settings.port}"
worker_class = "api.gunicorn_worker.ProblemWorker"  # gevent; its own error replies are problem+json
workers = _loaded_settings.api_processes
# How many requests a process has in progress at once, those that it holds included.
threads = _loaded_settings.api_threads + _loaded_settings.held_polls
worker_connections = _CONNECTIONS_MAX + threads
# One for each connection, two to Redis and one to MongoDB for each request in progress, and those of the process.
_allow_open_files(worker_connections + 3 * threads + 256)
reuse_port = True
backlog = 2048  # of the listening socket: connections that wait to be accepted, not task messages
preload_app = True  # the processes share its memory; each opens its own connections and threads after the fork
control_socket_disable = True  # all instances would use the same path in $HOME
timeout = 60  # of a worker's heartbeat, not of a request
graceful_timeout = 30
keepalive = 75
worker_tmp_dir = "/dev/shm" if os.path.isdir("/dev/shm") else None  # noqa: S108, PTH112  a heartbeat must not wait for a disk
limit_request_line = 8190
limit_request_fields = 100
limit_request_field_size = 8190
# By default gunicorn takes the path from SCRIPT_NAME and PATH_INFO if the peer is on this machine. A proxy there may
# pass on such a header of a caller, and would then decide by another path than the one that is served.
forwarder_headers = ""
accesslog = None  # api/http/middleware.py writes one with more fields
loglevel = _loaded_settings.log_level.lower()
logger_class = JsonLogger
proc_name = "bucket-api"
