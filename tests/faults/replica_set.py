"""A replica set of three mongod on their own loopback ports, for elections, step-downs and lost majorities.

Elections start after 2 s instead of 10, so that a test ends in seconds. mongod's test commands are enabled, so that a
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

from compose.embedded import api_port, server_plans
from compose.embedded.group_reaper import GroupReaper
from compose.embedded.managed_process import Child
from compose.embedded.process_plan import ChildPlan
from tests.waiting import wait_until

NAME = "faults"
NODES = 3
_REPLACED = ("--bind_ip", "--unixSocketPrefix", "--filePermissions", "--replSet", "--wiredTigerCacheSizeGB")


class ReplicaSet:
    """Three members, each a process that can be killed, frozen and started again."""

    def __init__(self, root: Path, group_reaper: GroupReaper) -> None:
        self._ports = [api_port.pick_port("127.0.0.1", 0) for _ in range(NODES)]
        hosts = ",".join(f"127.0.0.1:{number}" for number in self._ports)
        self.url = f"mongodb://{hosts}/bucket?replicaSet={NAME}"
        self._members = [
            Child(_plan(root / f"member-{number}", number), root / f"member-{number}.log", group_reaper)
            for number in self._ports
        ]
        self._root = root

    def start(self) -> None:
        """Start all members, initiate the set and wait until it has a primary that accepts writes."""
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
        """Yield a client with a direct connection to one member."""
        with closing(
            pymongo.MongoClient[dict[str, Any]](
                "127.0.0.1", self._ports[index], directConnection=True, serverSelectionTimeoutMS=2_000,
                socketTimeoutMS=5_000,
            )
        ) as client:  # fmt: skip
            yield client

    def primary(self) -> int:
        """Return the index of the primary; wait for an election if there is none."""
        primaries: list[int] = []

        def has_primary() -> bool:
            primaries[:] = [index for index in range(NODES) if self._is_primary(index)]
            return bool(primaries)

        wait_until(has_primary, 30, "the set has a primary")
        return primaries[0]

    def secondaries(self) -> list[int]:
        """Return the indexes of the members that are not the primary."""
        primary = self.primary()
        return [index for index in range(NODES) if index != primary]

    def kill(self, index: int) -> None:
        """Kill a member (SIGKILL)."""
        self._members[index].kill()

    def pause(self, index: int) -> None:
        """Freeze a member (SIGSTOP)."""
        self._members[index].pause()

    def mend(self) -> None:
        """Resume or restart each stopped member, and wait until the set is complete."""
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
        """Make the primary step down; another one is elected soon."""
        with self.member(self.primary()) as client, suppress(PyMongoError):
            client.admin.command("replSetStepDown", 5, secondaryCatchUpPeriodSecs=2, force=True)

    @contextmanager
    def failing(self, *commands: str, times: int | None = None, **how: Any) -> Iterator[None]:
        """Make every member fail ``commands`` while the block runs, ``times`` times or always.

        ``how`` has options of ``failCommand``: ``closeConnection``, ``errorCode``, ``writeConcernError``, ``appName``.
        """
        mode: Any = "alwaysOn" if times is None else {"times": times}
        self._fail(mode, {"failCommands": list(commands), **how})
        try:
            yield
        finally:
            self._fail("off", {})

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Stop replication while the block runs: the primary stays, but no majority has its writes."""
        members = self.secondaries()
        self._copying(members, mode="alwaysOn")
        try:
            yield
        finally:
            self._copying(members, mode="off")
            wait_until(self._has_majority, 30, "a majority has replicated the writes of the primary")

    def sometimes_failing(self, *commands: str, chance: float, **how: Any) -> None:
        """Make every member fail ``commands`` now and then from here on."""
        self._fail({"activationProbability": chance}, {"failCommands": list(commands), **how})

    def close(self) -> None:
        """Stop all members; their data is in a temporary directory."""
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
    default = server_plans.mongod_plan(data, data / "db")
    argv = list(default.argv)
    for option in _REPLACED:
        at = argv.index(option)
        del argv[at : at + 2]
    options = {
        "bind_ip": "127.0.0.1",
        "port": str(number),
        "replSet": NAME,
        "wiredTigerCacheSizeGB": "0.25",
    }
    flags = [text for name, value in options.items() for text in (f"--{name}", value)]
    flags += ["--nounixsocket", "--setParameter", "enableTestCommands=1"]
    flags += ["--setParameter", "shutdownTimeoutMillisForSignaledShutdown=0"]

    def is_ready() -> bool:
        with closing(
            pymongo.MongoClient[dict[str, Any]](
                "127.0.0.1", number, directConnection=True, serverSelectionTimeoutMS=500
            )
        ) as client:
            return bool(client.admin.command("ping")["ok"])

    return replace(default, name=f"mongod-{number}", argv=(*argv, *flags), ready=is_ready)
