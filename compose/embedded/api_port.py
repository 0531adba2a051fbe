"""Picks the TCP port of the API before anything is started."""

from __future__ import annotations

import errno
import socket
from typing import Final

from compose.operator_error import OperatorError

_PORT_MAX: Final = 65_535


def pick_port(host: str, port: int) -> int:
    """Return ``port`` if ``host`` can listen on it, or a free one for 0; raises OperatorError if it cannot."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            probe.listen(1)
            return int(probe.getsockname()[1])
    except OSError as error:
        raise _error_of(host, port, error) from error


def _error_of(host: str, port: int, error: OSError) -> OperatorError:
    if error.errno == errno.EADDRINUSE:
        other = port + 1 if port < _PORT_MAX else port - 1
        return OperatorError(f"port {port} is taken by another program", fix=f"take another one: PORT={other} make up")
    if error.errno == errno.EACCES:
        return OperatorError(f"port {port} is not ours to take", fix="take one above 1023: PORT=8000 make up")
    return OperatorError(f"nothing can listen on {host}:{port} ({error})", fix="HOST=127.0.0.1 PORT=8000 make up")


def local_url(host: str, port: int) -> str:
    """Return the URL at which this machine reaches a server that listens on ``host`` and ``port``."""
    reachable_host = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - only read here
    return f"http://[{reachable_host}]:{port}" if ":" in reachable_host else f"http://{reachable_host}:{port}"
