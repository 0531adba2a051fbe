#!/usr/bin/env bash
# hishel 2.0: the default client ignores all HTTP caching headers, so a poll returns its first response for ever.
#
# Expected: hishel is known as the RFC 9111 cache for HTTPX. A response with "Cache-Control: private, no-cache" is
#   revalidated before each use or not stored at all, and a request with "Cache-Control: no-cache" reaches the
#   server. hishel 1.4.0 sends each such poll to the server.
# What happens: since 2.0.0 the default mode stores each successful GET by its URL, without an expiry, and reads no
#   caching header of the response or of the request (the docstring says so). The first response comes back for
#   ever. It is kept in a file, so the next process gets it too. The RFC mode must be asked for:
#   CacheClient(rfc=True). The class has a new name (SyncCacheClient before), so an upgrade fails with an import
#   error first. Once the name is corrected the program runs, and nothing tells that the default has changed.
# Versions: hishel 2.0.0 and, to compare, 1.4.0; httpx 0.28.1; Python 3.11.7.
# Why a user of Bucket may meet it: a program that polls an execution through such a client sees the state
#   "queued" of its first poll and never the end. The server sees one request and no error, and no response header
#   helps. An agent that polls another service through such a client waits until its deadline.
#
# The script: a server on loopback says "done": true at the third request, with "Cache-Control: private, no-cache"
#   and an ETag (304 if it matches). Each client polls five times.
#
# Output seen:
#   httpx 0.28.1
#   hishel 1.4.0, defaults:                                 done: False False True True True; requests at the server: 5
#   hishel 2.0.0, defaults:                                 done: False False False False False; requests at the server: 1
#   hishel 2.0.0, defaults, another process:                done: False False False False False; requests at the server: 1
#   hishel 2.0.0, defaults, request says no-cache:          done: False False False False False; requests at the server: 1
#   hishel 2.0.0, rfc=True:                                 done: False False True True True; requests at the server: 5
#   as described: yes
set -euo pipefail

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

"${PYTHON:-python3}" -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check httpx==0.28.1 msgpack==1.2.4 typing-extensions==4.16.0
for version in 1.4.0 2.0.0; do
    "$dir/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps --target "$dir/hishel-$version" "hishel==$version"
done

cat >"$dir/poll.py" <<'PYTHON'
"""Poll a URL five times through hishel's client; print what each poll said of "done"."""
import json
import sys

import hishel.httpx

url, mode = sys.argv[1:]
if hasattr(hishel.httpx, "CacheClient"):  # 2.x
    client = hishel.httpx.CacheClient(rfc=True) if mode == "rfc" else hishel.httpx.CacheClient()
else:  # 1.x
    client = hishel.httpx.SyncCacheClient()
headers = {"Cache-Control": "no-cache"} if mode == "no-cache" else {}
with client:
    print(json.dumps([client.get(url, headers=headers).json()["done"] for _ in range(5)]))
PYTHON

"$dir/venv/bin/python" - "$dir" <<'PYTHON'
import collections
import http.server
import json
import os
import subprocess
import sys
import threading
from importlib.metadata import version

directory = sys.argv[1]
requests = collections.Counter()


class Job(http.server.BaseHTTPRequestHandler):
    """A job that is done at the third request for its path."""

    def do_GET(self):
        requests[self.path] += 1
        done = requests[self.path] >= 3
        etag = '"done"' if done else '"queued"'
        body = json.dumps({"done": done}).encode()
        if self.headers.get("If-None-Match") == etag:
            self.send_response(304)
            body = b""
        else:
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "private, no-cache")
        self.send_header("ETag", etag)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Job)
threading.Thread(target=server.serve_forever, daemon=True).start()


def poll(release, path, mode):
    """Return what five polls of a new process said, and how many requests the server has seen for the path."""
    folder = os.path.join(directory, f"work-{release}-{mode}")  # hishel keeps its file in the current folder
    os.makedirs(folder, exist_ok=True)
    said = subprocess.check_output(
        [sys.executable, os.path.join(directory, "poll.py"), f"http://127.0.0.1:{server.server_port}{path}", mode],
        cwd=folder, env={**os.environ, "PYTHONPATH": os.path.join(directory, f"hishel-{release}")}, timeout=120,
    )
    return json.loads(said), requests[path]


print("httpx", version("httpx"))
fresh, stale = [False, False, True, True, True], [False] * 5
same = True
for title, release, path, mode, expected in (
    ("hishel 1.4.0, defaults:", "1.4.0", "/job/1", "defaults", (fresh, 5)),
    ("hishel 2.0.0, defaults:", "2.0.0", "/job/2", "defaults", (stale, 1)),
    ("hishel 2.0.0, defaults, another process:", "2.0.0", "/job/2", "defaults", (stale, 1)),
    ("hishel 2.0.0, defaults, request says no-cache:", "2.0.0", "/job/3", "no-cache", (stale, 1)),
    ("hishel 2.0.0, rfc=True:", "2.0.0", "/job/4", "rfc", (fresh, 5)),
):
    said, count = poll(release, path, mode)
    same = same and (said, count) == expected
    print(f"{title:54}  done: {' '.join(map(str, said))}; requests at the server: {count}")
server.shutdown()
print("as described:", "yes" if same else "NO, it has changed")
sys.exit(0 if same else 1)
PYTHON
