#!/usr/bin/env bash
# Celery 5.7: task_publish_retry=False makes a failed publish ten times slower, until another publish has left
# its retry policy on the pooled connection.
#
# Expected: send_task(..., retry=False) or task_publish_retry=False makes one attempt and fails at once when the
#   broker is away; a retry policy that is given to one call counts for that call.
# What happens: retry=False only switches off Celery's own loop. Kombu still opens the connection, with its own
#   defaults, because it has no policy now: 3 attempts, with pauses of 2 s and 4 s, 6 s in all. With the default
#   (retry=True, max_retries 3) the same call fails after 0.6 s.
#   And the policy of a call with retry=True is copied into the transport options of the pooled connection and
#   stays there. After one such call the same retry=False fails after 0.6 s with 4 attempts, and after one
#   with max_retries 0 it fails at once, with 1 attempt. So how long a publish takes depends on which publishes
#   came before it in the process.
# Versions: celery 5.7.0, kombu 5.7.0, redis-py 8.1.0, Python 3.11.7. No broker is needed: its port is closed.
# Why a user of Bucket may meet it: a web view or an agent that also sends tasks to a Celery application of its
#   own, and switches retries off in order to fail fast, waits 6 s in each such call; that is longer than many
#   callers' timeouts, and a thread of the server is held meanwhile. Tests that publish something else first
#   do not show it. One attempt needs retry=True with max_retries 0 (or max_retries 0 in
#   broker_transport_options).
#
# Output seen (seconds differ by some tenths):
#   celery 5.7.0, kombu 5.7.0, redis-py 8.1.0, broker port closed
#   first publish of a process, defaults:               OperationalError after 0.65 s, 4 attempts
#   first publish of a process, retry=False:            OperationalError after 6.05 s, 3 attempts
#   retry=False after one publish with the defaults:    OperationalError after 0.61 s, 4 attempts
#   retry=False after one publish with max_retries=0:   OperationalError after 0.00 s, 1 attempts
#   as described: yes
set -euo pipefail

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

"${PYTHON:-python3}" -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check \
    celery==5.7.0 kombu==5.7.0 redis==8.1.0 packaging==26.3

cat >"$dir/publish.py" <<'PYTHON'
"""Send tasks to a closed port, one for each argument; print the error, the seconds and the attempts of the last."""
import json
import socket
import sys
import time

from celery import Celery
from celery.exceptions import OperationalError

PUBLISHES = {
    "defaults": {},
    "retry=False": {"retry": False},
    "max_retries=0": {"retry": True, "retry_policy": {"max_retries": 0}},
}
attempts = 0
connect = socket.socket.connect


def counted_connect(self, address):
    global attempts
    attempts += 1
    return connect(self, address)


socket.socket.connect = counted_connect
unused = socket.socket()
unused.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused, and nobody else gets the port
app = Celery("outside", broker=f"redis://127.0.0.1:{unused.getsockname()[1]}/0")
app.conf.task_ignore_result = True
for name in sys.argv[1:]:
    attempts = 0
    began = time.monotonic()
    try:
        app.send_task("task", **PUBLISHES[name])
        outcome = "sent"
    except OperationalError:
        outcome = "OperationalError"
    last = (outcome, round(time.monotonic() - began, 2), attempts)
print(json.dumps(last))
PYTHON

"$dir/venv/bin/python" - "$dir/publish.py" <<'PYTHON'
import json
import subprocess
import sys
from importlib.metadata import version


def publish(*names):
    """Return outcome, seconds and attempts of the last of these publishes, made in a new process."""
    return json.loads(subprocess.check_output([sys.executable, sys.argv[1], *names], timeout=120))


print(f"celery {version('celery')}, kombu {version('kombu')}, redis-py {version('redis')}, broker port closed")
cases = {
    "first publish of a process, defaults:": ("defaults",),
    "first publish of a process, retry=False:": ("retry=False",),
    "retry=False after one publish with the defaults:": ("defaults", "retry=False"),
    "retry=False after one publish with max_retries=0:": ("max_retries=0", "retry=False"),
}
seen = []
for title, names in cases.items():
    outcome, seconds, attempts = publish(*names)
    seen.append((outcome, seconds, attempts))
    print(f"{title:50}  {outcome} after {seconds:.2f} s, {attempts} attempts")

same = (
    all(outcome == "OperationalError" for outcome, _, _ in seen)
    and [attempts for _, _, attempts in seen] == [4, 3, 4, 1]
    and seen[1][1] >= 5.5  # the pauses of 2 s and 4 s
)
print("as described:", "yes" if same else "NO, it has changed")
sys.exit(0 if same else 1)
PYTHON
