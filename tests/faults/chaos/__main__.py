"""``make chaos``: 2,000 mixed runs while workers are killed, Redis is flushed and the primary steps down.

The exit code is 1 if anything was lost, doubled or changed.

python -m tests.faults.chaos [--runs N] [--seconds S] [--seed N] [--store before|after]
                             [--agents claimed|idempotent|mixed]
"""

from __future__ import annotations

import argparse
import random
import secrets
import shutil
import sys
import tempfile
import time
from pathlib import Path

from compose.embedded.group_reaper import GroupReaper
from tests.api_client import AGENTS
from tests.faults.chaos import workload
from tests.faults.chaos.callers import Callers
from tests.faults.chaos.killer import Crew, Killer, print_now
from tests.faults.chaos.verdict import ChaosReport, judge
from tests.faults.chaos.workload import plan
from tests.faults.replica_set import ReplicaSet
from tests.stack import Stack

WORKERS = 3
SETTLES_WITHIN_S = 240.0
FAILS_OF_ALL = 0.05
WRITES = ("findAndModify", "update")
STORES = {
    "before": {"errorCode": 6},  # HostUnreachable: the command is not executed
    "after": {"writeConcernError": {"code": 91, "errmsg": "written, and the reply is lost"}},
}


def play(
    root: Path, *, runs: int, seconds: float, seed: int, store: str | None = None, agents: str = "mixed"
) -> ChaosReport:
    """Run the chaos of ``seed`` on servers of its own in ``root`` and return its report."""
    chance = random.Random(seed)
    provider = root / "provider"
    provider.mkdir()
    with GroupReaper() as group_reaper:
        members = ReplicaSet(root / "members", group_reaper)
        try:
            members.start()
            return _play_on(members, group_reaper, root, chance, runs=runs, seconds=seconds, store=store, mix=agents)
        finally:
            members.close()


def _play_on(
    members: ReplicaSet, group_reaper: GroupReaper, root: Path, chance: random.Random, *, runs: int, seconds: float,
    store: str | None, mix: str,
) -> ChaosReport:  # fmt: skip
    stack = Stack(
        root, group_reaper, BUCKET_AGENTS_DIR=str(AGENTS), MONGODB_URL=members.url, BUCKET_LOSSES_MAX="20",
        BUCKET_LOG_LEVEL="WARNING",
    )  # fmt: skip
    crew = Crew(stack, WORKERS)
    callers = Callers(stack.url)
    try:
        stack.start_all()
        stack.stop("worker")
        crew.start()
        if store is not None:
            members.sometimes_failing(*WRITES, chance=FAILS_OF_ALL, appName="bucket-worker", **STORES[store])
        callers.start([plan(chance, number, str(root / "provider"), mix) for number in range(runs)], seconds)
        killer = Killer(chance, crew, stack, members, seconds)
        started_at = time.monotonic()
        while not callers.all_done and time.monotonic() < started_at + seconds + SETTLES_WITHIN_S:
            if time.monotonic() < started_at + seconds:
                killer.check()
            crew.check()
            time.sleep(0.05)
        took_s = time.monotonic() - started_at
        callers.stop()
        callers.poll_again()
        members.wait_whole()
        figures = judge(callers, runs, stack.mongo(), root / "provider", killer)
        print_now(
            f"{killer.count('kill')} kills, {crew.restarts} restarts, {killer.count('flush')} flushes, "
            f"{killer.count('step-down')} step-downs "
            f"in {took_s:.0f} s; answers {dict(sorted(callers.statuses.items()))}"
        )
    finally:
        callers.stop()
        crew.close()
        stack.close()
    return figures


def main() -> int:
    """Run chaos with the options of the command line; return 1 if anything was lost, doubled or changed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=2_000)
    parser.add_argument("--seconds", type=float, default=240.0, help="how long to submit and to strike")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**9))
    parser.add_argument("--store", choices=sorted(STORES), help="have writes fail now and then, before or after")
    parser.add_argument(
        "--agents", choices=sorted(workload.AGENTS), default="mixed", help="which agents the steps have"
    )
    args = parser.parse_args()
    print_now(f"seed {args.seed}")
    root = Path(tempfile.mkdtemp(prefix="bucket-chaos-"))
    figures = play(root, runs=args.runs, seconds=args.seconds, seed=args.seed, store=args.store, agents=args.agents)
    print_now(figures.summary())
    if figures.faults:
        print_now(f"logs and data: {root}")
    else:
        shutil.rmtree(root, ignore_errors=True)
    return bool(figures.faults)


if __name__ == "__main__":
    sys.exit(main())
