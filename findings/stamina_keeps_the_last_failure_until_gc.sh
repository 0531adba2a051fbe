#!/usr/bin/env bash
# stamina 26.1 and tenacity 9.2: what the last failed attempt held (its frames, with a response in them) stays in memory
# after the error was handled, until the garbage collector runs. A loop of one's own lets go of it at once.
#
# Expected: once an `except` block has ended, its error is gone, with the traceback, the frames in it and their variables;
#   counting references is enough for that, and a library that only calls a function again changes nothing.
# What happens: the last attempt's error stands in a future, which stands in a state, which is a variable of the library's
#   frame; the error that is raised again has that frame in its traceback. That is a cycle, so only the collector frees it.
#   The attempts before the last are freed at once, and so are those of a call that succeeds in the end.
#   The collector counts objects and not their bytes: with its default thresholds some twenty dead failures lie about
#   at a time here, whatever their size (fewer if each call makes more objects); with gc.disable() all of them.
# Versions: stamina 26.1.0, tenacity 9.2.1, Python 3.11.7.
# Why a user of Bucket may meet it: stamina comes with Bucket, and an upstream that is down makes each call of an agent of
#   one's own end like that. Calls that have read 50 MB before they fail may cost hundreds of MB in a worker with a
#   limit on memory. Bucket's gateway therefore does not let errors pass through stamina: it notes the error and raises
#   it itself after the attempts. Or let the function drop what is large (try ... finally: del) before the error leaves it.
#
# Output seen (the last number differs a little from run to run):
#   stamina 26.1.0, tenacity 9.2.1
#   3 failed attempts each; objects of their frames that are left after the error was handled, collector off
#   a loop with try and except:      0 of 3
#   stamina.retry:                   1 of 3
#   stamina.retry_context:           1 of 3
#   tenacity.retry, reraise=True:    1 of 3
#   stamina.retry, 3rd succeeds:     0 of 2
#   after gc.collect():              0
#   most at a time in 500 failed calls, collector on: loop 1, stamina.retry 20
#   as described: yes
set -euo pipefail

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

"${PYTHON:-python3}" -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check stamina==26.1.0 tenacity==9.2.1

"$dir/venv/bin/python" - <<'PYTHON'
import gc
import logging
import sys
import weakref
from importlib.metadata import version

import stamina
import tenacity

logging.getLogger("stamina").setLevel(logging.ERROR)
NO_WAIT = {"wait_initial": 0, "wait_max": 0, "wait_jitter": 0}
held = {"now": 0, "most": 0, "made": 0}


class Response:
    """Stands for something large."""


def let_go():
    held["now"] -= 1


def fail(succeeds_at=None):
    response = Response()
    if held["made"] + 1 == succeeds_at:
        return
    weakref.finalize(response, let_go)
    held["made"] += 1
    held["now"] += 1
    held["most"] = max(held["most"], held["now"])
    raise ConnectionError("the body ended early")


def loop():
    for left in (2, 1, 0):
        try:
            return fail()
        except ConnectionError:
            if not left:
                raise


def with_context():
    for attempt in stamina.retry_context(on=ConnectionError, attempts=3, **NO_WAIT):
        with attempt:
            fail()


with_stamina = stamina.retry(on=ConnectionError, attempts=3, **NO_WAIT)(fail)
with_tenacity = tenacity.retry(stop=tenacity.stop_after_attempt(3), reraise=True)(fail)


def left_after(call):
    """Return how many attempts failed and how many of their responses are left once the error was handled."""
    held.update(now=0, most=0, made=0)
    try:
        call()
    except ConnectionError:
        pass
    return held["now"], held["made"]


def most_at_a_time(call):
    gc.collect()
    held.update(now=0, most=0, made=0)
    for _ in range(500):
        try:
            call()
        except ConnectionError:
            pass
    most = held["most"]
    gc.collect()
    return most


print(f"stamina {version('stamina')}, tenacity {version('tenacity')}")
print("3 failed attempts each; objects of their frames that are left after the error was handled, collector off")
cases = {
    "a loop with try and except:": loop,
    "stamina.retry:": with_stamina,
    "stamina.retry_context:": with_context,
    "tenacity.retry, reraise=True:": with_tenacity,
    "stamina.retry, 3rd succeeds:": lambda: with_stamina(succeeds_at=3),
}
left_after(with_stamina)  # the first call sets up stamina's hooks
gc.collect()
gc.disable()
seen, collected = [], []
for title, call in cases.items():
    seen.append(left_after(call))
    gc.collect()
    collected.append(held["now"])
    print(f"{title:32} {seen[-1][0]} of {seen[-1][1]}")
gc.enable()
print(f"{'after gc.collect():':32} {sum(collected)}")
of_loop, of_stamina = most_at_a_time(loop), most_at_a_time(with_stamina)
print(f"most at a time in 500 failed calls, collector on: loop {of_loop}, stamina.retry {of_stamina}")
same = seen == [(0, 3), (1, 3), (1, 3), (1, 3), (0, 2)] and not any(collected) and of_loop <= 2 and of_stamina >= 5
print("as described:", "yes" if same else "NO, it has changed")
sys.exit(0 if same else 1)
PYTHON
