#!/usr/bin/env bash
# httpx2 2.16, asyncio: a request that is cancelled during its TLS handshake leaves its socket open, also after the client
# is closed; only the garbage collector closes it. The time limit of httpx2 itself closes it at once.
#
# Expected: `async with asyncio.timeout(2): await client.get(url)` frees the connection when the time is up, as it does
#   without TLS, and `async with httpx2.AsyncClient()` leaves nothing open behind it.
# What happens: the stream is closed if the handshake fails with an error. A cancellation is no Exception, so that branch
#   is passed by; the connection is not in the pool yet, so closing the client does not find it. The transport is part
#   of a reference cycle: it stays until a full collection, which a program of few new objects may not make for long.
# Versions: httpx2 2.16.2, httpcore2 2.16.2, anyio 4.16.0, Python 3.11.
# Why a user of Bucket may meet it: an integration or an agent that bounds whole calls with asyncio.timeout (the limits of
#   httpx2 count for one read), or cancels its tasks, while an https server or a proxy accepts connections and is then
#   silent. Each try costs a descriptor here, and at the server a connection. With httpx2.Timeout(connect=...) below the
#   bound of the whole call, nothing is left.
#
# Output seen:
#   httpx2 2.16.2, httpcore2 2.16.2, anyio 4.16.0, 20 requests each
#   https, cancelled by asyncio.timeout:   20 sockets left after the client was closed, 0 after a collection
#   https, ended by httpx2's own timeout:   0 sockets left after the client was closed, 0 after a collection
#   http, cancelled by asyncio.timeout:     0 sockets left after the client was closed, 0 after a collection
#   as described: yes
set -euo pipefail

dir=$(mktemp -d)
pids=()
stop() {
    for pid in "${pids[@]}"; do
        kill "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    done
    rm -rf "$dir"
}
trap stop EXIT

"${PYTHON:-python3}" -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check httpx2==2.16.2 httpcore2==2.16.2 anyio==4.16.0

cat >"$dir/silent_server.py" <<'PYTHON'
"""Accept connections on loopback and say nothing."""
import socket
import sys

listener = socket.create_server(("127.0.0.1", 0))
with open(sys.argv[1], "w") as file:
    file.write(str(listener.getsockname()[1]))
connections = []
while True:
    connections.append(listener.accept())
PYTHON

cat >"$dir/client.py" <<'PYTHON'
"""Count the sockets that are left after 20 requests of each kind."""
import asyncio
import gc
import os
import sys
from importlib.metadata import version

import httpx2

PORT = open(sys.argv[1]).read()
COUNT = 20


def open_sockets():
    links = [f"/proc/self/fd/{name}" for name in os.listdir("/proc/self/fd")]
    return sum(os.path.islink(link) and os.readlink(link).startswith("socket") for link in links)


async def left_open(scheme, connect_s, bound_s):
    before = open_sockets()
    async with httpx2.AsyncClient(trust_env=False, timeout=httpx2.Timeout(30, connect=connect_s)) as client:
        for _ in range(COUNT):
            try:
                async with asyncio.timeout(bound_s):
                    await client.get(f"{scheme}://127.0.0.1:{PORT}/")
            except (TimeoutError, httpx2.TransportError):
                pass
    await asyncio.sleep(0.1)
    after_close = open_sockets() - before
    gc.collect()
    return after_close, open_sockets() - before


gc.disable()
print(", ".join(f"{name} {version(name)}" for name in ("httpx2", "httpcore2", "anyio")) + f", {COUNT} requests each")
found = []
for title, scheme, connect_s, bound_s in (
    ("https, cancelled by asyncio.timeout:", "https", 30, 0.2),
    ("https, ended by httpx2's own timeout:", "https", 0.2, 30),
    ("http, cancelled by asyncio.timeout:", "http", 30, 0.2),
):
    found.append(asyncio.run(left_open(scheme, connect_s, bound_s)))
    print(f"{title:37} {found[-1][0]:3} sockets left after the client was closed, {found[-1][1]} after a collection")
as_described = found == [(COUNT, 0), (0, 0), (0, 0)]
print("as described:", "yes" if as_described else "NO")
sys.exit(not as_described)
PYTHON

"$dir/venv/bin/python" "$dir/silent_server.py" "$dir/port" &
pids+=($!)
for _ in $(seq 100); do [ -s "$dir/port" ] && break; sleep 0.05; done
"$dir/venv/bin/python" -W ignore "$dir/client.py" "$dir/port"
