"""Settles the TCP port of the API before anything is started."""

from __future__ import annotations

import errno
import socket
from typing import Final

from compose.errors import OperatorError

_PORT_MAX: Final = 65_535


def pick_port(host: str, port: int) -> int:
    """Answer ``port`` where ``host`` can listen on it, or a free one for 0; raises Trouble where it cannot."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            probe.listen(1)
            return int(probe.getsockname()[1])
    except OSError as refused:
        raise _error_of(host, port, refused) from refused


def _error_of(host: str, port: int, refused: OSError) -> OperatorError:
    if refused.errno == errno.EADDRINUSE:
        other = port + 1 if port < _PORT_MAX else port - 1
        return OperatorError(f"port {port} is taken by another program", fix=f"take another one: PORT={other} make up")
    if refused.errno == errno.EACCES:
        return OperatorError(f"port {port} is not ours to take", fix="take one above 1023: PORT=8000 make up")
    return OperatorError(f"nothing can listen on {host}:{port} ({refused})", fix="HOST=127.0.0.1 PORT=8000 make up")


def local_url(host: str, port: int) -> str:
    """Answer the URL at which this machine reaches a server that listens on ``host`` and ``port``."""
    reached = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - only read here
    return f"http://[{reached}]:{port}" if ":" in reached else f"http://{reached}:{port}"
