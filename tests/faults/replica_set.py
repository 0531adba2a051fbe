"""Three mongod as one replica set, on loopback ports of their own: for elections, step-downs and lost majorities.

Elections are called after 2 s and not 10, so that a test ends in seconds, and mongod's test commands are on, so that a
command can be made to fail (:meth:`ReplicaSet.failing`).
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pymongo
from pymongo.errors import PyMongoError

from compose.embedded import servers, tcp_port
from compose.embedded.group_reaper import GroupReaper
from compose.embedded.managed_process import Child
from compose.embedded.process_plan import ChildPlan
from tests.waiting import wait_until

NAME = "faults"
NODES = 3
_REPLACED = ("--bind_ip", "--unixSocketPrefix", "--filePermissions", "--replSet", "--wiredTigerCacheSizeGB")


class ReplicaSet:
    """Three members, each a process that can be killed, frozen and started again."""

    def __init__(self, root: Path, guard: GroupReaper) -> None:
        self._ports = [tcp_port.pick_port("127.0.0.1", 0) for _ in range(NODES)]
        hosts = ",".join(f"127.0.0.1:{number}" for number in self._ports)
        self.url = f"mongodb://{hosts}/bucket?replicaSet={NAME}"
        self._members = [
            Child(_plan(root / f"member-{number}", number), root / f"member-{number}.log", guard)
            for number in self._ports
        ]
        self._root = root

    def start(self) -> None:
        """Start all members, make them one set and wait until it has a primary that takes writes."""
        for member in self._members:
            member.start()
        for member in self._members:
            member.wait_ready()
        members = [{"_id": index, "host": f"127.0.0.1:{number}"} for index, number in enumerate(self._ports)]
        settings = {"electionTimeoutMillis": 2_000, "heartbeatIntervalMillis": 500}
        with self.member(0) as client:
            client.admin.command("replSetInitiate", {"_id": NAME, "members": members, "settings": settings})
        self.wait_whole()

    @contextmanager
    def member(self, index: int) -> Iterator[pymongo.MongoClient[dict[str, Any]]]:
        """Answer a client of one member alone."""
        with closing(
            pymongo.MongoClient[dict[str, Any]](
                "127.0.0.1", self._ports[index], directConnection=True, serverSelectionTimeoutMS=2_000,
                socketTimeoutMS=5_000,
            )
        ) as client:  # fmt: skip
            yield client

    def primary(self) -> int:
        """Answer which member is the primary, waiting for an election where there is none."""
        found: list[int] = []

        def look() -> bool:
            found[:] = [index for index in range(NODES) if self._is_primary(index)]
            return bool(found)

        wait_until(look, 30, "the set has a primary")
        return found[0]

    def secondaries(self) -> list[int]:
        """Answer the members that are no primary."""
        primary = self.primary()
        return [index for index in range(NODES) if index != primary]

    def kill(self, index: int) -> None:
        """End a member at once (SIGKILL)."""
        self._members[index].kill()

    def pause(self, index: int) -> None:
        """Freeze a member (SIGSTOP)."""
        self._members[index].pause()

    def mend(self) -> None:
        """Thaw and start again what does not run, and wait until the set is whole."""
        for member in self._members:
            if member.is_alive():
                member.resume()
            else:
                member.start()
                member.wait_ready()
        self.wait_whole()

    def wait_whole(self) -> None:
        """Wait until one member is the primary and all others follow it."""
        wait_until(self._is_whole, 60, "one primary and two secondaries")

    def step_down(self) -> None:
        """Have the primary step down; another is elected within a moment."""
        with self.member(self.primary()) as client, suppress(PyMongoError):
            client.admin.command("replSetStepDown", 5, secondaryCatchUpPeriodSecs=2, force=True)

    @contextmanager
    def failing(self, *commands: str, times: int | None = None, **how: Any) -> Iterator[None]:
        """Have every member fail ``commands`` while the block runs, ``times`` times or always.

        ``how`` is what ``failCommand`` takes: ``closeConnection``, ``errorCode``, ``writeConcernError``, ``appName``.
        """
        mode: Any = "alwaysOn" if times is None else {"times": times}
        self._fail(mode, {"failCommands": list(commands), **how})
        try:
            yield
        finally:
            self._fail("off", {})

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Have no member copy what the primary writes while the block runs: it stays primary, without a majority."""
        members = self.secondaries()
        self._copying(members, mode="alwaysOn")
        try:
            yield
        finally:
            self._copying(members, mode="off")
            wait_until(self._has_majority, 30, "a majority has copied what the primary wrote")

    def sometimes_failing(self, *commands: str, chance: float, **how: Any) -> None:
        """Have every member fail ``commands`` now and then from here on."""
        self._fail({"activationProbability": chance}, {"failCommands": list(commands), **how})

    def close(self) -> None:
        """End all members; their data is a temporary directory's."""
        for member in self._members:
            member.kill()

    def _fail(self, mode: Any, data: dict[str, Any]) -> None:
        for index in range(NODES):
            with suppress(PyMongoError), self.member(index) as client:
                client.admin.command("configureFailPoint", "failCommand", mode=mode, data=data)

    def _has_majority(self) -> bool:
        with suppress(PyMongoError), self.member(self.primary()) as client:
            note: dict[str, Any] = {"data": {"noted by": NAME}, "writeConcern": {"w": "majority", "wtimeout": 4_000}}
            return bool(client.admin.command("appendOplogNote", **note)["ok"])
        return False

    def _copying(self, members: Iterable[int], mode: str) -> None:
        for index in members:
            with self.member(index) as client:
                client.admin.command("configureFailPoint", "stopReplProducer", mode=mode)

    def _is_primary(self, index: int) -> bool:
        if not self._members[index].is_alive():
            return False
        with suppress(PyMongoError), self.member(index) as client:
            return bool(client.admin.command("hello")["isWritablePrimary"])
        return False

    def _is_whole(self) -> bool:
        time.sleep(0.1)
        with suppress(PyMongoError), self.member(self.primary()) as client:
            states = [member["stateStr"] for member in client.admin.command("replSetGetStatus")["members"]]
            return sorted(states) == ["PRIMARY", "SECONDARY", "SECONDARY"]
        return False


def _plan(data: Path, number: int) -> ChildPlan:
    usual = servers.mongod_plan(data, data / "db")
    argv = list(usual.argv)
    for option in _REPLACED:
        at = argv.index(option)
        del argv[at : at + 2]
    more = {
        "bind_ip": "127.0.0.1",
        "port": str(number),
        "replSet": NAME,
        "wiredTigerCacheSizeGB": "0.25",
    }
    flags = [text for name, value in more.items() for text in (f"--{name}", value)]
    flags += ["--nounixsocket", "--setParameter", "enableTestCommands=1"]
    flags += ["--setParameter", "shutdownTimeoutMillisForSignaledShutdown=0"]

    def answers() -> bool:
        with closing(
            pymongo.MongoClient[dict[str, Any]](
                "127.0.0.1", number, directConnection=True, serverSelectionTimeoutMS=500
            )
        ) as client:
            return bool(client.admin.command("ping")["ok"])

    return replace(usual, name=f"mongod-{number}", argv=(*argv, *flags), ready=answers)
