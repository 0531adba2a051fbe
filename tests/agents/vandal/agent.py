"""Changes what its process shares with the next agent, or leaves processes behind; returns the state that it found."""

from __future__ import annotations

import asyncio
import decimal
import locale
import logging
import logging.config
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import shared_memory
from pathlib import Path
from typing import Any

from worker.context import AgentContext

LEAKED: list[Any] = []


def run(given: dict[str, Any], ctx: AgentContext) -> dict[str, Any]:
    if "do" not in given:
        return {}
    found = state()
    made = CHANGES[given["do"]](given) or {}
    due_by = time.monotonic() + given.get("then_wait_s", 0)
    while time.monotonic() < due_by and not ctx.cancelled:
        time.sleep(0.05)
    return {"state": found, "pid": os.getpid(), "made": made}


def state() -> dict[str, Any]:
    """Describe this process as far as an agent can change it for others."""
    umask = os.umask(0o022)
    os.umask(umask)
    return {
        "decimal": str(decimal.getcontext()),
        "recursion_limit": sys.getrecursionlimit(),
        "handlers": {str(int(number)): str(signal.getsignal(number)) for number in signal.valid_signals()},
        "alarm": signal.getitimer(signal.ITIMER_REAL),
        "environ": dict(os.environ),
        "directory": str(Path.cwd()),
        "locale": locale.setlocale(locale.LC_ALL),
        "timezone": time.timezone,
        "warnings": [str(warnings.filters), str(warnings.showwarning), str(warnings._showwarnmsg_impl)],  # type: ignore[attr-defined]
        "warning_is_raised": warning_is_raised(),
        "logging": [
            str(logging.getLogger().level),
            str(logging.getLogger().handlers),
            str(logging.root.manager.disable),
        ],
        "worker_log_disabled": logging.getLogger("celery").disabled,
        "signal_mask": sorted(map(int, signal.pthread_sigmask(signal.SIG_BLOCK, ()))),
        "timers": signal.getitimer(signal.ITIMER_VIRTUAL)[0],
        "event_loop": has_event_loop(),
        "umask": umask,
        "path": sys.path[:],
        "stdout": str(sys.stdout),
        "socket_timeout": socket.getdefaulttimeout(),
    }


def warning_is_raised() -> bool:
    try:
        warnings.warn("a probe", UserWarning, stacklevel=1)
    except UserWarning:
        return True
    return False


def has_event_loop() -> bool:
    if sys.version_info >= (3, 12):
        return True  # asyncio.get_event_loop warns, and from 3.14 on fails in any case
    try:
        asyncio.get_event_loop().close()
    except RuntimeError:
        return False
    return True


def change_everything(_: dict[str, Any]) -> None:
    decimal.getcontext().prec = 6
    decimal.DefaultContext.prec = 5
    sys.setrecursionlimit(200)
    for number in (signal.SIGTERM, signal.SIGUSR2, signal.SIGCHLD):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, lambda *_: None)
    signal.alarm(60)
    os.environ["TZ"], os.environ["PATH"] = "Asia/Tokyo", ""
    time.tzset()
    os.chdir("/")
    locale.setlocale(locale.LC_ALL, "C" if locale.setlocale(locale.LC_ALL) != "C" else "C.UTF-8")
    warnings.simplefilter("error")
    logging.config.dictConfig({"version": 1, "root": {"level": "CRITICAL", "handlers": []}})
    logging.disable(logging.CRITICAL)
    os.umask(0)
    sys.path.insert(0, "/nowhere")
    sys.stdout = open(os.devnull, "w")  # noqa: PTH123, SIM115
    socket.setdefaulttimeout(0.001)


def leave_program(_: dict[str, Any]) -> dict[str, Any]:
    return {"pid": subprocess.Popen(["sleep", "600"]).pid}


def leave_background_programs(_: dict[str, Any]) -> None:
    for _ in range(3):
        subprocess.run(["sh", "-c", "sleep 600 & sleep 0 &"], check=True)


def await_daemon(given: dict[str, Any]) -> dict[str, Any]:
    """Start a program that has left its parent, as gpg-agent or a browser does, and wait for what it writes."""
    answer = Path(given["file"])
    subprocess.run(["sh", "-c", f"(sleep 3; echo done >'{answer}') >/dev/null 2>&1 &"], check=True)
    due_by = time.monotonic() + 10
    while not answer.exists() and time.monotonic() < due_by:
        time.sleep(0.05)
    return {"answered": answer.exists()}


def double(number: int) -> int:
    return 2 * number


def use_pools(_: dict[str, Any]) -> dict[str, Any]:
    with multiprocessing.Pool(2) as pool:
        by_pool = pool.map(double, range(3))
    with ProcessPoolExecutor(2) as executor:
        by_executor = list(executor.map(double, range(3)))
    memory = shared_memory.SharedMemory(create=True, size=8)
    memory.close()
    memory.unlink()
    return {"by_pool": by_pool, "by_executor": by_executor}


def leak_pool(_: dict[str, Any]) -> None:
    LEAKED.append(multiprocessing.Pool(2))


def break_worker(_: dict[str, Any]) -> None:
    from worker.steps.runner import Runner

    def broken(*_: Any) -> None:
        raise AttributeError("broken by an agent")

    Runner.run_message_and_backlog = broken  # type: ignore[method-assign]


def fork_and_raise(_: dict[str, Any]) -> dict[str, Any]:
    """Fork a process that ends as no program does: by an exception, through all the frames of the worker."""
    forked = os.fork()
    if not forked:
        raise RuntimeError("the forked process")
    time.sleep(1)
    return {"forked": os.waitpid(forked, 0)[1] != 0}


def replace_environment(_: dict[str, Any]) -> None:
    os.environ = {"PATH": "/"}  # type: ignore[assignment]  # noqa: B003


def close_output(_: dict[str, Any]) -> None:
    sys.stdout.close()


def block_signals(_: dict[str, Any]) -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGUSR2))
    signal.setitimer(signal.ITIMER_VIRTUAL, 30)


def record_warnings(_: dict[str, Any]) -> None:
    warnings.catch_warnings(record=True).__enter__()
    warnings.simplefilter("error")


async def _nothing() -> None:
    """Do nothing, in an event loop."""


def use_event_loop(_: dict[str, Any]) -> None:
    asyncio.run(_nothing())


def start_later(_: dict[str, Any]) -> None:
    """Leave a thread behind that goes on starting programs once the attempt has ended."""

    def start() -> None:
        for _ in range(60):
            time.sleep(0.3)
            LEAKED.append(subprocess.Popen(["sleep", "600"]))

    threading.Thread(target=start, daemon=True).start()


def write_to_stdout(given: dict[str, Any]) -> None:
    """Write what looks like a log line, and a megabyte that does not, by all ways to the standard streams."""
    sys.stdout.write('{"event": "the worker is lost", "level": "critical"}\n')
    for line in ("x" * 1024 * 1024 + "\n", "without an end \udcff\0"):
        for stream in (sys.stdout, sys.__stdout__, sys.stderr):
            stream.buffer.write(line.encode(errors="surrogateescape"))  # type: ignore[union-attr]
            stream.flush()  # type: ignore[union-attr]


def leave_thread(given: dict[str, Any]) -> None:
    """Leave a thread behind that is no daemon, and goes on for minutes."""
    threading.Thread(target=time.sleep, args=(300,)).start()


CHANGES = {
    "fork": fork_and_raise,
    "environment": replace_environment,
    "output": close_output,
    "signals": block_signals,
    "event_loop": use_event_loop,
    "warnings": record_warnings,
    "later": start_later,
    "chatter": write_to_stdout,
    "thread": leave_thread,
    "nothing": lambda _: None,
    "everything": change_everything,
    "program": leave_program,
    "background": leave_background_programs,
    "daemon": await_daemon,
    "pools": use_pools,
    "leak_pool": leak_pool,
    "break_worker": break_worker,
}
