"""The connection to MongoDB: one client for each process id, causal sessions, a deadline on every call, own errors."""

from __future__ import annotations

import math
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sized
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import FrameType
from typing import Any, Final

import pymongo
from bson.codec_options import CodecOptions
from bson.errors import BSONError
from pymongo.client_session import ClientSession
from pymongo.collection import Collection
from pymongo.database import Database as MongoDatabase
from pymongo.errors import (
    ConfigurationError,
    DuplicateKeyError,
    OperationFailure,
    PyMongoError,
    ServerSelectionTimeoutError,
    WaitQueueTimeoutError,
)
from pymongo.read_concern import ReadConcern

from shared.errors import NotStorable, OutcomeUnknown, Unavailable
from shared.store.indexes import INDEXES
from shared.store.mongo_client import connect

_DEFAULT_NAME: Final = "bucket"
_WRITE_UNAVAILABLE: Final = "MongoDB does not answer; nothing was stored, send the same request again"
_READ_UNAVAILABLE: Final = "MongoDB does not answer; send the same request again"
_INDEX_TIMEOUT_S: Final = 30.0
# The driver searches for a server in steps of half a second, so a search takes up to one step more than its limit.
_SELECTION_STEP_S: Final = 0.5
_SERVER_CHECK_VALID_S: Final = 0.1
# A pause of the store or the machine that is shorter is no outage; with more, a 503 would come later than in a second.
_PING_TIMEOUT_S: Final = 0.8
_NO_ELECTION: Final = object()
_TOO_LARGE_CODES: Final = frozenset({10334, 17280, 17419, 17420})

_Document = dict[str, Any]
_TZ_AWARE: Final[CodecOptions[_Document]] = CodecOptions(tz_aware=True)


@dataclass(frozen=True, slots=True)
class _ProcessClient:
    """The client of one process, with a cache of collections: pymongo builds a new one for each access."""

    pid: int
    database: MongoDatabase[_Document]
    collections: dict[str, Collection[_Document]] = field(default_factory=dict)

    def collection(self, name: str) -> Collection[_Document]:
        cached = self.collections.get(name)
        return self.collections.setdefault(name, self.database[name]) if cached is None else cached


class Database:
    """The database and its collections; every call has ``deadline_s`` seconds in total, retries included.

    Without ``retries`` a call never takes longer than that: each retry may search for a server again.
    """

    def __init__(self, url: str, role: str, deadline_s: float, *, retries: bool = True) -> None:
        self._url = url
        self._role = role
        self.deadline_s = deadline_s
        self._retries = retries
        self._lock = threading.Lock()
        self._opened: _ProcessClient | None = None
        self._available_at = -math.inf
        self._last_reply_at = -math.inf
        self._caught_up_with: object = _NO_ELECTION
        self.is_away = False
        """Set by a monitor that calls :meth:`read_server_time`: every other call then fails at once, not after its
        deadline, as with an open circuit breaker."""
        self.on_failure: Callable[[], None] = lambda: None
        """Called after each call that got no reply: the primary may have changed."""
        self.observe: Callable[[str, float], None] | None = None
        """Called after each call with the name of the method that made it, and the seconds that it took."""

    def collection(self, name: str) -> Collection[_Document]:
        """Return a collection of this process's own client: a client must not cross a fork."""
        return self._process_client().collection(name)

    def session(self) -> ClientSession:
        """Start a causal session: a later read in it never sees less than an earlier one, also after a failover."""
        return self._process_client().database.client.start_session()

    @contextmanager
    def causal_session(self, query: _Document) -> Iterator[ClientSession]:
        """Yield a causal session that has seen the primary's present state of the executions of ``query``.

        Majority reads in it include that state, and so do all later ones from the same primary.
        """
        election = self._election()
        with self.session() as session:
            local = self.collection("executions").with_options(read_concern=ReadConcern("local"))
            local.find_one(query, {"_id": 1}, session=session)
            yield session
        self._caught_up_with = election

    @contextmanager
    def read_session(self, query: _Document, *, causal: bool) -> Iterator[ClientSession | None]:
        """Yield a causal session if one is asked for, or for the first read after an election, else None.

        A primary that was just elected serves older majority data for a moment than the one before it has served.
        Raises Unavailable if one was elected during the read.
        """
        if causal or self._election() != self._caught_up_with:
            with self.causal_session(query) as session:
                yield session
            return
        yield None
        if self._election() != self._caught_up_with:
            raise Unavailable(_READ_UNAVAILABLE)

    def _election(self) -> object:
        """Return the id of the newest election that the driver knows of; None for a server without elections."""
        return self._process_client().database.client.topology_description.max_election_id

    def check_server(self) -> None:
        """Fail early if no server is known and none is found, so that time is left for the call itself."""
        if not self._retries and time.monotonic() - self._available_at > _SERVER_CHECK_VALID_S:
            with pymongo.timeout(max(self.deadline_s - _SELECTION_STEP_S, 0.01)):
                _ = self._process_client().database.client.is_primary

    def record_reply(self, *, succeeded: bool) -> None:
        """Record whether a call got a reply: for a moment after a reply a server is known to be there."""
        if succeeded:
            self._last_reply_at = time.monotonic()
        self._available_at = self._last_reply_at if succeeded else -math.inf

    def has_replied_since(self, moment: float) -> bool:
        """Return whether any call got a reply after ``moment`` (monotonic seconds): a busy store is not away."""
        return self._last_reply_at > moment

    def read_server_time(self) -> datetime:
        """Return the primary's own time, within a second; it calls MongoDB also if ``is_away``."""
        try:
            with translate_errors():
                self.check_server()
                with pymongo.timeout(min(self.deadline_s, _PING_TIMEOUT_S)):
                    admin = self._process_client().database.client.admin
                    server_time: datetime = admin.command("hello", codec_options=_TZ_AWARE)["localTime"]
        except OutcomeUnknown as lost:
            raise Unavailable(_WRITE_UNAVAILABLE) from lost
        return server_time.astimezone(UTC)  # the driver's zone is slow Python code, UTC's is C

    def is_connected(self) -> bool:
        """Return whether a primary replies within the deadline."""
        try:
            self.read_server_time()
        except Unavailable:
            return False
        return True

    def ensure_indexes(self) -> None:
        """Create the indexes, each under its name; those that exist already cost only a check.

        An index that must be built has more time than other calls: it must be built also if the store is busy.
        """
        for name, indexes in INDEXES.items():
            with db_call(self, timeout_s=_INDEX_TIMEOUT_S):
                self.collection(name).create_indexes(indexes)

    def close(self) -> None:
        """Close this process's client, if it has one."""
        with self._lock:
            if self._opened is not None and self._opened.pid == os.getpid():
                self._opened.database.client.close()
            self._opened = None

    def _process_client(self) -> _ProcessClient:
        opened = self._opened
        if opened is None or opened.pid != os.getpid():
            with self._lock:
                if self._opened is None or self._opened.pid != os.getpid():
                    self._opened = _ProcessClient(os.getpid(), self._open())
                opened = self._opened
        return opened

    def _open(self) -> MongoDatabase[_Document]:
        client = connect(
            self._url,
            self.deadline_s,
            appname=f"bucket-{self._role}",
            tz_aware=True,
            w="majority",
            journal=True,
            readConcernLevel="majority",
            retryWrites=self._retries,
            retryReads=self._retries,
            connect=False,
            connectTimeoutMS=2_000,
        )
        return client.get_default_database(_DEFAULT_NAME)


@contextmanager
def db_call(database: Database, *, writes: bool = True, timeout_s: float | None = None) -> Iterator[None]:
    """Run the block with the deadline of ``database`` (or ``timeout_s``) and translate the driver's errors.

    Raises Unavailable if nothing can have been written, OutcomeUnknown if that cannot be known, NotStorable for
    content that no repetition will store. DuplicateKeyError passes: it is a reply. A block that does not write
    (``writes=False``) has no unknown outcome.
    """
    if database.is_away:
        raise Unavailable(_WRITE_UNAVAILABLE if writes else _READ_UNAVAILABLE)
    began_at = time.monotonic()
    # Who called ``__enter__``: so every call is counted by the name of its method, and none must repeat it.
    caller = "" if database.observe is None else _public_name(sys._getframe(2))  # noqa: SLF001
    try:
        with translate_errors():
            database.check_server()
            with pymongo.timeout(timeout_s or database.deadline_s):
                yield
        database.record_reply(succeeded=True)
    except (Unavailable, OutcomeUnknown) as lost:
        database.record_reply(succeeded=False)
        database.on_failure()
        if writes:
            raise
        raise Unavailable(_READ_UNAVAILABLE) from lost
    finally:
        if database.observe is not None:
            database.observe(caller, time.monotonic() - began_at)


def _public_name(frame: FrameType | None) -> str:
    """Return the name of the function of ``frame``, or of the nearest caller whose name is not private."""
    while frame is not None and frame.f_code.co_name.startswith("_"):
        frame = frame.f_back
    return "" if frame is None else frame.f_code.co_name


@contextmanager
def translate_errors() -> Iterator[None]:
    """Translate the driver's errors to Bucket's; DuplicateKeyError passes.

    It has no deadline, and so serves alone a call that waits at the store for changes: with a deadline the driver would
    make the server wait for all the time that is left, not for the requested time.
    """
    try:
        yield
    except DuplicateKeyError:
        raise
    except (ServerSelectionTimeoutError, WaitQueueTimeoutError, ConfigurationError) as away:
        raise Unavailable(_WRITE_UNAVAILABLE) from away
    except (BSONError, OverflowError, UnicodeError) as refused:
        raise NotStorable(f"the store refuses this content: {type(refused).__name__}") from refused
    except PyMongoError as failed:
        if isinstance(failed, OperationFailure) and failed.code in _TOO_LARGE_CODES:
            raise NotStorable("the store refuses this content: it is too large") from failed
        raise OutcomeUnknown from failed


def full_batch_size(ids: Sized) -> int:
    """Return the cursor batch size with which all documents of ``ids`` come in one reply.

    It is one more than there can be: a batch that is exactly full leaves the cursor open for one more, empty reply.
    """
    return len(ids) + 1
