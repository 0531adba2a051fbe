#!/usr/bin/env bash
# gunicorn 27 with --reuse-port cannot be upgraded in place: the new master of SIGUSR2 ends at once with a ValueError.
#
# Expected: SIGUSR2 starts a second master with workers beside the first, with the setting reuse_port as without it;
#   with SO_REUSEPORT both could even listen without handing anything over.
# What happens: with the setting each worker opens its own socket and the master holds none, so the list of descriptors
#   that it hands to the new master is empty. The new one splits the empty string and reads its one empty part as a
#   number. The old master goes on and logs nothing about it. Who follows the documented steps without a look at the
#   new master (SIGUSR2, then SIGTERM to the old one) is left without a server.
# Versions: gunicorn 27.0.1, Python 3.11.7, Linux.
# Why a user of Bucket may meet it: the API runs with reuse_port, and deployments upgrade it in place. Bucket's settings
#   put a number into the variable, which nothing reads then. Other gunicorns behind the same proxy have no such help.
#
# Output seen:
#   gunicorn 27.0.1
#   without --reuse-port:  the new master has a worker
#   with --reuse-port:     the new master ended: ValueError: invalid literal for int() with base 10: ''
set -euo pipefail
folder=$(mktemp -d)
cleanup() {
    for pid in $(cat "$folder/pids" 2>/dev/null); do kill -KILL -- "-$pid" 2>/dev/null || true; done
    rm -rf "$folder"
}
trap cleanup EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --no-input gunicorn==27.0.1 packaging==26.3
cd "$folder"
cat >small.py <<'PYTHON'
import os


def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(os.getppid()).encode()]
PYTHON
"$folder/venv/bin/python" -c 'import gunicorn; print("gunicorn", gunicorn.__version__)'

upgrade() { # NAME OPTION...: prints whether a second master comes up
    local name=$1 port old
    shift
    port=$("$folder/venv/bin/python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
    touch "$name.log"
    setsid "$folder/venv/bin/gunicorn" "$@" --bind "127.0.0.1:$port" --no-control-socket small:app >"$name.log" 2>&1 &
    old=$!
    echo "$old" >>"$folder/pids" # each leads a group, in which its new master is too
    for _ in $(seq 100); do
        if grep -q "Booting worker" "$name.log"; then break; fi
        sleep 0.1
    done
    kill -USR2 "$old"
    for _ in $(seq 50); do
        if [ "$(grep -c "Booting worker" "$name.log")" -ge 2 ]; then
            echo "the new master has a worker"
            return
        fi
        if grep -qE "^[A-Za-z.]*(Error|Exception)\b" "$name.log"; then break; fi
        sleep 0.1
    done
    echo "the new master ended: $(grep -E "^[A-Za-z.]*(Error|Exception)\b" "$name.log" | tail -1)"
}

without=$(upgrade without)
with=$(upgrade with --reuse-port)
echo "without --reuse-port:  $without"
echo "with --reuse-port:     $with"
[ "$without" = "the new master has a worker" ]
[[ "$with" == "the new master ended: ValueError:"* ]]
