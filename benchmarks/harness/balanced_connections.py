"""Balanced connections: opens them so that each process of a server gets as many; chance would else decide the rate.

With SO_REUSEPORT the kernel chooses the process of a new connection by the hash of its ports, so 32 may be split 21:11.
"""

from __future__ import annotations

import os
import socket
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

_ACCEPTED_WITHIN_S: Final = 5.0
_TRIES_A_CONNECTION: Final = 20
_ESTABLISHED: Final = "01"


@contextmanager
def opened_evenly(address: tuple[str, int], count: int, pids: Sequence[int]) -> Iterator[list[socket.socket]]:
    """Open ``count`` connections as :func:`open_evenly` does, and close them at the end of the block."""
    connections = open_evenly(address, count, pids)
    try:
        yield connections
    finally:
        for connection in connections:
            connection.close()


def open_evenly(address: tuple[str, int], count: int, pids: Sequence[int]) -> list[socket.socket]:
    """Open ``count`` connections to ``address``, spread over the processes ``pids`` as evenly as possible.

    Raises RuntimeError if the processes do not accept them.
    """
    share = -(-count // len(pids))
    connections: list[socket.socket] = []
    count_by_pid: Counter[int] = Counter()
    for _ in range(count * _TRIES_A_CONNECTION):
        connection = socket.create_connection(address, timeout=_ACCEPTED_WITHIN_S)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        owner = _owner(address[1], connection.getsockname()[1], pids)
        if count_by_pid[owner] >= share:
            connection.close()
            continue
        count_by_pid[owner] += 1
        connections.append(connection)
        if len(connections) == count:
            return connections
    raise RuntimeError(f"{count} connections could not be spread over the processes {list(pids)}: {dict(count_by_pid)}")


def _owner(server_port: int, client_port: int, pids: Sequence[int]) -> int:
    """Return the id of the process that accepted the connection; a gunicorn thread needs a moment for it."""
    due_by = time.monotonic() + _ACCEPTED_WITHIN_S
    while time.monotonic() < due_by:
        inode = _inode(server_port, client_port)
        for pid in pids if inode else ():
            if f"socket:[{inode}]" in _files_of(pid):
                return pid
        time.sleep(0.0005)
    raise RuntimeError(f"none of the processes {list(pids)} accepted a connection")


def _inode(local: int, remote: int) -> str | None:
    # Columns of /proc/net/tcp: number, local address, remote address, state, ..., inode.
    for row in Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]:
        fields = row.split()
        ends = tuple(int(end.rpartition(":")[2], 16) for end in fields[1:3])
        if ends == (local, remote) and fields[3] == _ESTABLISHED and fields[9] != "0":
            return fields[9]
    return None


def _files_of(pid: int) -> set[str]:
    links = set()
    with suppress(OSError):
        for name in os.listdir(f"/proc/{pid}/fd"):  # noqa: PTH208 - a Path for each would double the time
            with suppress(OSError):
                links.add(os.readlink(f"/proc/{pid}/fd/{name}"))  # noqa: PTH115 - the same
    return links
