"""``python -m tests.trust``: the long form of the tests of trust; ``--seed N`` makes the same requests again."""

from __future__ import annotations

import argparse
import math
import secrets
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

from compose.embedded.group_reaper import GroupReaper
from tests.api_client import AGENTS
from tests.stack import Stack
from tests.trust.crossings import SETTINGS, run_crossings
from tests.trust.header_run import run_headers
from tests.trust.same_time import measure_refusals

PARTS: Final = ("crossings", "headers", "time")


def main() -> int:
    """Run the parts that the command line names; return 1 if one of them has found a fault."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--operations", type=int, default=100_000, help="random requests of two integrators")
    parser.add_argument("--within-s", type=float, default=math.inf, help="send no more random requests after this time")
    parser.add_argument("--headers", type=int, default=50_000, help="made-up Authorization headers")
    parser.add_argument("--requests", type=int, default=2_000, help="requests of each kind whose times are compared")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**9))
    parser.add_argument("--only", choices=PARTS, action="append", help="only this part; may be given several times")
    arguments = parser.parse_args()
    _print(f"seed {arguments.seed}")
    parts: dict[str, Callable[[Stack], tuple[bool, Iterable[str]]]] = {
        "crossings": lambda stack: _crossings(stack, arguments),
        "headers": lambda stack: _headers(stack, arguments.headers, arguments.seed),
        "time": lambda stack: (False, measure_refusals(stack, arguments.requests)),
    }
    has_faults = False
    for name in arguments.only or PARTS:
        began = time.monotonic()
        with _stack() as stack:
            is_faulty, report = parts[name](stack)
            for line in report:
                _print(line)
        _print(f"{name}: {'faults' if is_faulty else 'no fault'} in {time.monotonic() - began:.0f} s\n")
        has_faults |= is_faulty
    return int(has_faults)


def _crossings(stack: Stack, arguments: argparse.Namespace) -> tuple[bool, Iterable[str]]:
    findings = run_crossings(
        stack,
        operations=arguments.operations,
        seed=arguments.seed,
        within_s=arguments.within_s,
        on_progress=_print,
    )
    return bool(findings.faults), findings.report()


def _headers(stack: Stack, headers: int, seed: int) -> tuple[bool, Iterable[str]]:
    findings = run_headers(stack.redis_url, stack.mongodb_url, headers=headers, seed=seed)
    return bool(findings.faults), findings.report()


@contextmanager
def _stack() -> Iterator[Stack]:
    with tempfile.TemporaryDirectory(prefix="bucket-trust-") as root, GroupReaper() as group_reaper:
        stack = Stack(Path(root), group_reaper, BUCKET_AGENTS_DIR=str(AGENTS), **SETTINGS)
        with closing(stack):
            stack.start_all()
            yield stack


def _print(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
