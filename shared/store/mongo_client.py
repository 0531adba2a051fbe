"""Makes clients of MongoDB: the driver's, with less at rest and no wait longer than its limit."""

from __future__ import annotations

from typing import Any, Final

from pymongo import MongoClient
from pymongo.synchronous.monitor import Monitor

# The driver's housekeeping is due once a second, and looks whether it is as often as this: twice as often by default.
_HOUSEKEEPING_EVERY_S: Final = 1.0

_Document = dict[str, Any]


class _QuietMonitor(Monitor):
    """The driver's monitor of a server, without the thread that only measures round trips.

    That thread sends one command in ten seconds over a connection of its own, and wakes its process twice a second. The
    driver chooses among servers by what it measures; Bucket reads and writes at the primary alone.
    """

    def _start_rtt_monitor(self) -> None:
        """Start nothing: the round trip of the first command to a server is what the driver knows of it."""


def connect(url: str, timeout_s: float, *, bound_calls: bool = False, **options: Any) -> MongoClient[_Document]:
    """Return a client that searches for a server no longer than ``timeout_s``; ``options`` are the driver's own.

    With ``bound_calls`` each connection attempt and each wait for a reply has this limit too: for a client whose calls
    do not go through :func:`shared.store.database.db_call`.
    """
    milliseconds = int(timeout_s * 1_000)
    if bound_calls:
        options |= {"connectTimeoutMS": milliseconds, "socketTimeoutMS": milliseconds}
    client: MongoClient[_Document] = MongoClient(
        url,
        serverSelectionTimeoutMS=milliseconds,
        waitQueueTimeoutMS=milliseconds,
        # A date after the year 9999 is then a value that its reader refuses, not an error of the whole reply.
        datetime_conversion="DATETIME_AUTO",
        _monitor_class=_QuietMonitor,
        **options,
    )
    client._kill_cursors_executor._min_interval = _HOUSEKEEPING_EVERY_S  # noqa: SLF001  (no option of the driver)
    return client
