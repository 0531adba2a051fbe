"""Isolation of agents from each other: what one changes in its process does not reach the next attempt, or our code.

After each attempt the process is as it was before the first: settings of Python and of the operating system are put
back, and the processes that the agent began are ended. Not undone: changes within modules (a patched function), limits
that the kernel does not raise again, and threads; docs/agents.md says so to authors. A quick step pays for each reset,
so what is unchanged is found by cheap calls: ``_signal`` and ``os.environ._data``, because ``signal`` makes an enum of
each handler and ``os.environ`` decodes each variable; ``get_inheritable``, the cheapest call that a closed descriptor
fails.
"""

from __future__ import annotations

import asyncio
import contextvars
import decimal
import faulthandler
import locale
import logging
import multiprocessing
import multiprocessing.process
import os
import signal
import socket
import sys
import threading
import time
import warnings
from _locale import setlocale
from _signal import getsignal, pthread_sigmask, setitimer  # type: ignore[import-not-found]
from collections.abc import Callable
from operator import attrgetter
from typing import Any, Final

import structlog

from worker.supervision import child_processes

_SIGNALS: Final = tuple(sorted(signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}))
_HANDLED_BY_CHILD: Final = (
    signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2
)  # fmt: skip
EXIT_FORKED: Final = 73
_TIMERS: Final = (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)
_OWN_THREADS: Final = ("MainThread", "heartbeat", "step-interrupter", "pymongo", "OtelBatch")
_STANDARD_DESCRIPTORS: Final = (0, 1, 2)
_FIELDS_OF_DECIMAL_CONTEXT: Final = ("prec", "rounding", "Emin", "Emax", "capitals", "clamp")
_decimal_settings: Final = attrgetter(*_FIELDS_OF_DECIMAL_CONTEXT)


class AgentIsolation:
    """The state of one pool child before its first attempt, to which it returns after each.

    ``is_unfit`` becomes true once this process cannot be put back any more and must be replaced.
    """

    def __init__(self) -> None:
        """Take the state as it is; call this in the child's main thread, after its signal handlers are set."""
        self.is_unfit = False
        self._recursion_limit = sys.getrecursionlimit()
        self._streams = sys.stdin, sys.stdout, sys.stderr
        self._path = sys.path[:]
        self._environ, self._environ_bytes = dict(os.environ), dict(_environ_bytes())
        self._directory = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._umask = os.umask(0o077)
        os.umask(self._umask)
        self._handlers = [*map(getsignal, _SIGNALS)]
        self._warning_filters: tuple[Any, list[Any]] = warnings.filters, list(warnings.filters)
        self._show_warning = warnings.showwarning, warnings._showwarnmsg_impl  # type: ignore[attr-defined]  # noqa: SLF001
        self._locale = setlocale(locale.LC_ALL)
        self._decimal_context = decimal.getcontext().copy()
        self._decimal_settings = _decimal_settings(self._decimal_context)
        root = logging.getLogger()
        self._logging = root.level, root.handlers[:], root.filters[:], logging.root.manager.disable
        self._signal_mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        self._environ_object = os.environ
        child_processes.become_subreaper()
        _allow_multiprocessing()

    def run(self, agent: Callable[..., Any], *arguments: Any) -> Any:
        """Call ``agent`` in a context of its own, so that no context variable that it sets outlives the call."""
        process_id = os.getpid()
        try:
            return contextvars.copy_context().run(self._run_with_own_decimal_context, agent, *arguments)
        finally:
            if os.getpid() != process_id:
                os._exit(EXIT_FORKED)  # a process that the agent has forked must not go on as a second worker child

    def reset(self) -> None:
        """Put this process back as it was, and end the processes that the agent has begun; raises nothing.

        If it cannot be put back it is unfit, and the agent's own outcome stands all the same.
        """
        try:
            self._put_back()
        except Exception:  # noqa: BLE001  (whatever an agent has done to this process)
            structlog.get_logger().exception("this process could not be put back as it was before the agent")
            self.is_unfit = True
        try:
            self._end_processes()
        except Exception:  # noqa: BLE001  (the same)
            structlog.get_logger().exception("the processes of an agent could not be ended")
            self.is_unfit = True

    def _put_back(self) -> None:
        if sys.getrecursionlimit() != self._recursion_limit:  # first: what follows needs it
            sys.setrecursionlimit(self._recursion_limit)
        self._reset_signals()
        self._reset_streams()
        self._reset_environment()
        if setlocale(locale.LC_ALL) != self._locale:
            setlocale(locale.LC_ALL, self._locale)
        if _decimal_settings(decimal.DefaultContext) != self._decimal_settings:
            for name, value in zip(_FIELDS_OF_DECIMAL_CONTEXT, self._decimal_settings, strict=True):
                setattr(decimal.DefaultContext, name, value)  # what the contexts of new threads begin with
        socket.setdefaulttimeout(None)
        if sys.version_info < (3, 14):  # where asyncio.run leaves the thread without a loop for asyncio.get_event_loop
            asyncio.set_event_loop_policy(None)
        self._reset_warnings()
        self._reset_logging()

    def _reset_signals(self) -> None:
        for timer in _TIMERS:
            setitimer(timer, 0)
        faulthandler.cancel_dump_traceback_later()
        pthread_sigmask(signal.SIG_SETMASK, self._signal_mask)
        if [*map(getsignal, _SIGNALS)] == self._handlers:
            return
        for number, handler in zip(_SIGNALS, self._handlers, strict=True):
            if handler is not None and getsignal(number) != handler:
                signal.signal(number, handler)

    def _reset_streams(self) -> None:
        sys.stdin, sys.stdout, sys.stderr = self._streams
        for stream in self._streams:
            self.is_unfit |= stream is not None and stream.closed
        for descriptor in _STANDARD_DESCRIPTORS:
            os.get_inheritable(descriptor)  # a closed one would be taken by the next socket

    def _reset_environment(self) -> None:
        if sys.path != self._path:
            sys.path[:] = self._path
        os.environ = self._environ_object  # noqa: B003 - the object that Python made, in place of an agent's
        if _environ_bytes() != self._environ_bytes:
            os.environ.clear()
            os.environ.update(self._environ)
            time.tzset()
        os.fchdir(self._directory)
        os.umask(self._umask)

    def _reset_warnings(self) -> None:
        warnings.showwarning, warnings._showwarnmsg_impl = self._show_warning  # type: ignore[attr-defined]  # noqa: SLF001
        filters, entries = self._warning_filters
        if warnings.filters is not filters or filters != entries:
            warnings.filters = filters
            warnings.resetwarnings()  # it empties the list, and tells the interpreter of the change
            filters.extend(entries)

    def _run_with_own_decimal_context(self, agent: Callable[..., Any], *arguments: Any) -> Any:
        decimal.setcontext(self._decimal_context.copy())
        return agent(*arguments)

    def _reset_logging(self) -> None:
        level, handlers, filters, disabled_level = self._logging
        root = logging.getLogger()
        if logging.root.manager.disable != disabled_level:
            logging.disable(disabled_level)
        if (root.level, root.handlers, root.filters) == (level, handlers, filters):
            return
        root.setLevel(level)
        root.handlers[:], root.filters[:] = handlers, filters
        for logger in logging.root.manager.loggerDict.values():  # dictConfig disables those that exist
            if isinstance(logger, logging.Logger):
                logger.disabled = False

    def _end_processes(self) -> None:
        if not child_processes.has_children():
            return
        structlog.get_logger().warning("processes that the agent began have not ended with its step and are killed")
        # A thread that an agent left behind may wait for them or begin others, as that of a multiprocessing.Pool does.
        has_left_threads = any(not thread.name.startswith(_OWN_THREADS) for thread in threading.enumerate())
        self.is_unfit |= not child_processes.end_children() or has_left_threads


def _environ_bytes() -> dict[bytes, bytes]:
    data: dict[bytes, bytes] = os.environ._data  # type: ignore[attr-defined]  # noqa: SLF001
    return data


def _allow_multiprocessing() -> None:
    """Let agents use multiprocessing: a process of a pool is a daemon, which may have no children."""
    config: dict[str, Any] = multiprocessing.process.current_process()._config  # type: ignore[attr-defined]  # noqa: SLF001
    config["daemon"] = False
    # Functions of agents cannot be imported by a new interpreter, which the other methods start.
    multiprocessing.set_start_method("fork", force=True)
    forks = _SignalsOfForks()
    os.register_at_fork(before=forks.block, after_in_parent=forks.unblock, after_in_child=forks.set_defaults)


class _SignalsOfForks(threading.local):
    """Gives a process that an agent forks the default handlers: those of a pool child are not for it.

    The signals are blocked meanwhile. One that came between the fork and the change would be lost, and
    ``multiprocessing.Pool.terminate`` waits for a process that it has sent SIGTERM.
    """

    def __init__(self) -> None:
        self._mask: set[Any] = set()

    def block(self) -> None:
        self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, _HANDLED_BY_CHILD)

    def set_defaults(self) -> None:
        for number in _HANDLED_BY_CHILD:
            signal.signal(number, signal.SIG_DFL)
        self.unblock()

    def unblock(self) -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)
