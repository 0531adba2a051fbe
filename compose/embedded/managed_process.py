"""Runs one process of the stack: starts it so that it dies with us, waits until it is ready, stops its whole group."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

from compose.embedded import die_with_parent
from compose.embedded.group_reaper import GroupReaper
from compose.embedded.process_plan import ChildPlan
from compose.operator_error import OperatorError

_CHECK_EVERY_S: Final = 0.02
_TAIL_LINES: Final = 12
_TAIL_BYTES: Final = 16_384


class Child:
    """One process in a session of its own, so that Ctrl-C in the terminal reaches only the supervisor.

    Its output goes directly to the file ``log``, so that it never blocks on a full pipe. Start it from the main thread,
    see :mod:`compose.embedded.die_with_parent`. With a ``reaper``, no process of its group outlives this process.
    """

    def __init__(self, plan: ChildPlan, log: Path, reaper: GroupReaper | None = None) -> None:
        self.plan = plan
        self.log = log
        self._reaper = reaper
        self._process: subprocess.Popen[bytes] | None = None
        self.exit_code: int | None = None

    @property
    def pid(self) -> int | None:
        """The process id, which is also its group's; None if it does not run."""
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        """Start the process without waiting; :meth:`wait_ready` waits until it serves."""
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError(f"{self.plan.name} would end with this thread: start it from the main thread")
        # -I and -S: die_with_parent needs only the standard library, and so starts in a third of the time.
        command = [sys.executable, "-I", "-S", die_with_parent.__file__, str(os.getpid()), *self.plan.argv]
        self.exit_code = None
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - the plan's own command
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=dict(self.plan.env),
                start_new_session=True,
            )
        if self._reaper is not None:
            self._reaper.register(self._process.pid)

    def wait_ready(self) -> None:
        """Wait until the process is ready; raises OperatorError with the end of its log if it ends or is too slow."""
        due_by = time.monotonic() + self.plan.start_timeout_s
        name, reason = self.plan.name, "it does not say why"
        while True:
            if not self.is_alive():
                raise OperatorError(f"{name} ended at once, with code {self.exit_code}", fix=self.log_tail())
            try:
                if self.plan.ready():
                    return
            except Exception as error:  # noqa: BLE001 - normal during a start; reported only if it times out
                reason = str(error)
            if time.monotonic() > due_by:
                message = f"{name} was not ready within {self.plan.start_timeout_s:g} s ({reason})"
                raise OperatorError(message, fix=self.log_tail())
            time.sleep(_CHECK_EVERY_S)

    def is_alive(self) -> bool:
        """Return whether the process runs; one that has ended is reaped, and the rest of its group is killed."""
        if not self._has_ended():
            return True
        self.kill()
        return False

    def stop(self) -> None:
        """Ask the process to end, kill it after its grace period, and kill the rest of its group."""
        self.terminate()
        self.wait_stopped()

    def terminate(self) -> None:
        """Send SIGTERM to the process, which stops its own children."""
        if self._process is not None and not self._has_ended():
            self._process.send_signal(signal.SIGTERM)
            self._signal_group(signal.SIGCONT)  # a paused process would not receive SIGTERM

    def wait_stopped(self) -> None:
        """Wait until the process has ended, and kill it if its grace period is over."""
        due_by = time.monotonic() + self.plan.stop_timeout_s
        while not self._has_ended() and time.monotonic() < due_by:
            time.sleep(_CHECK_EVERY_S)
        self.kill()

    def kill(self) -> None:
        """Kill the process and its whole group at once."""
        if self._process is not None and self._process.returncode is None:
            self._signal_group(signal.SIGKILL)
            if self._reaper is not None:
                self._reaper.unregister(self._process.pid)
            self.exit_code = self._process.wait()
        self._process = None

    def kill_group(self) -> None:
        """Send SIGKILL to the whole group and nothing more, so that a signal handler can call it; it does not reap."""
        self._signal_if_running(signal.SIGKILL)

    def pause(self) -> None:
        """Pause the process and its whole group (SIGSTOP)."""
        self._signal_if_running(signal.SIGSTOP)

    def resume(self) -> None:
        """Resume the process and its whole group (SIGCONT)."""
        self._signal_if_running(signal.SIGCONT)

    def log_tail(self) -> str:
        """Return the last lines of the log, and the path of the whole log."""
        try:
            with self.log.open("rb") as log:
                log.seek(max(0, self.log.stat().st_size - _TAIL_BYTES))
                lines = log.read().decode(errors="replace").splitlines()[-_TAIL_LINES:]
        except OSError:
            lines = []
        return "\n".join([*(f"  {self.plan.name} | {line}" for line in lines), f"the whole log: {self.log}"])

    def _signal_if_running(self, number: signal.Signals) -> None:
        if not self._has_ended():
            self._signal_group(number)

    def _has_ended(self) -> bool:
        # Check without reaping (WNOWAIT): otherwise the kernel could reuse the id of the process and its group before
        # we have killed the rest of the group.
        if self._process is None or self._process.returncode is not None:
            return True
        return os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def _signal_group(self, number: signal.Signals) -> None:
        assert self._process is not None  # noqa: S101 - for mypy; the callers have checked it
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)
