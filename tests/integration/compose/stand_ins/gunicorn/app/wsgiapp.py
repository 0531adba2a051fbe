"""Stand-in for the API: serves the requests of ``bucketd up`` and completes every run at once."""

import json
import os
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TOTAL = int(os.environ.get("STAND_IN_TOTAL", "1000"))


refusals = int(os.environ.get("STAND_IN_REFUSALS", "0"))


class Api(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/health":
            self.reply({"services": {"workers": "connected"}})
        elif self.path == "/ready":
            self.reply({"status": "ready"})
        else:
            analysis = {"total": TOTAL, "positive": TOTAL, "negative": 0}
            self.reply({"done": True, "status": "completed", "result": {"analysis": analysis}})

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        global refusals  # noqa: PLW0603 - a script
        refusals -= 1
        self.reply({"status_url": "/execution-logs/1"}, 503 if refusals >= 0 else 202)

    def reply(self, body: object, status: int = 200) -> None:
        text = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)


def run() -> None:
    # A grandchild that ignores SIGTERM, like a hung gunicorn worker.
    subprocess.Popen([sys.executable, "-c", "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(600)"])
    print("the api stand-in starts", flush=True)  # noqa: T201 - its log
    ThreadingHTTPServer((os.environ["HOST"], int(os.environ["PORT"])), Api).serve_forever()
