#!/usr/bin/env bash
# httpx2 2.16: of a gzip response with several members the first is the content; the rest is dropped without an error.
#
# Expected: response.content is all that was sent. A gzip stream is one or more members (RFC 1952, section 2.2): what
#   `cat a.gz b.gz` and block gzip make, and what a server sends that ends a member with each flush (watch lists of
#   Kubernetes 1.37 are reported to be such). The gzip module and requests read all members, and httpx2 itself reads all
#   frames of a zstd body.
# What happens: the decoder is one zlib object, which stops at the end of its first member; what follows is read from the
#   network and left aside. The status is 200, Content-Length is met, no error is raised. It is the same with iter_bytes(),
#   iter_lines() and the async client, and wherever the chunks of the body end. If each member has whole lines, the
#   shortened JSON lines or CSV are well-formed too.
# Versions: httpx2 2.16.2 with backports.zstd 1.8.0, requests 2.34.2 with urllib3 2.8.0, Python 3.11.7.
# Why a user of Bucket may meet it: httpx2 comes with Bucket and its client, and scripts beside them fetch exports and logs
#   with it; stored objects that were put together from compressed parts are served with Content-Encoding: gzip as they
#   are. Work then goes on with the first hour of a day. Bucket's gateway unzips what iter_raw() gives, member by member,
#   for this reason; for a body that fits into memory, gzip.decompress() of it will do.
#
# Output seen (lines of 30, sent as 3 members or frames of 10):
#   httpx2 2.16.2, requests 2.34.2, urllib3 2.8.0
#   gzip, httpx2 content:          10 lines, status 200
#   gzip, httpx2 iter_lines:       10 lines
#   gzip, httpx2 AsyncClient:      10 lines
#   gzip, requests content:        30 lines
#   gzip, gzip.decompress of raw:  30 lines
#   zstd, httpx2 content:          30 lines
#   as described: yes
set -euo pipefail

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

"${PYTHON:-python3}" -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check \
    httpx2==2.16.2 httpcore2==2.16.2 anyio==4.16.0 backports.zstd==1.8.0 requests==2.34.2 urllib3==2.8.0

"$dir/venv/bin/python" - <<'PYTHON'
import asyncio
import gzip
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version

import httpx2
import requests

try:
    from compression import zstd
except ImportError:
    from backports import zstd

PARTS = [b"".join(b'{"hour": %d, "line": %d}\n' % (hour, line) for line in range(10)) for hour in range(3)]
BODIES = {
    "gzip": b"".join(gzip.compress(part) for part in PARTS),
    "zstd": b"".join(zstd.compress(part) for part in PARTS),
}


class Parts(BaseHTTPRequestHandler):
    def do_GET(self):
        coding = self.path[1:]
        self.send_response(200)
        self.send_header("Content-Type", "application/jsonl")
        self.send_header("Content-Encoding", coding)
        self.send_header("Content-Length", str(len(BODIES[coding])))
        self.end_headers()
        self.wfile.write(BODIES[coding])

    def log_message(self, *args):
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Parts)
threading.Thread(target=server.serve_forever, daemon=True).start()
url = f"http://127.0.0.1:{server.server_port}"


async def with_async_client():
    async with httpx2.AsyncClient(trust_env=False) as client:
        return (await client.get(url + "/gzip")).content


with httpx2.Client(trust_env=False) as client:
    response = client.get(url + "/gzip")
    with client.stream("GET", url + "/gzip") as streamed:
        lines = list(streamed.iter_lines())
    with client.stream("GET", url + "/gzip") as streamed:
        raw = b"".join(streamed.iter_raw())
    zstd_content = client.get(url + "/zstd").content
with requests.Session() as session:
    session.trust_env = False
    requests_content = session.get(url + "/gzip").content
async_content = asyncio.run(with_async_client())
server.shutdown()
server.server_close()

print(f"httpx2 {version('httpx2')}, requests {version('requests')}, urllib3 {version('urllib3')}")
seen = {
    "gzip, httpx2 content:": response.content.count(b"\n"),
    "gzip, httpx2 iter_lines:": len(lines),
    "gzip, httpx2 AsyncClient:": async_content.count(b"\n"),
    "gzip, requests content:": requests_content.count(b"\n"),
    "gzip, gzip.decompress of raw:": gzip.decompress(raw).count(b"\n"),
    "zstd, httpx2 content:": zstd_content.count(b"\n"),
}
for title, number in seen.items():
    print(f"{title:30} {number} lines{', status 200' if title.endswith('httpx2 content:') and 'gzip' in title else ''}")
same = list(seen.values()) == [10, 10, 10, 30, 30, 30] and response.status_code == 200 and response.content == PARTS[0]
print("as described:", "yes" if same else "NO, it has changed")
sys.exit(0 if same else 1)
PYTHON
