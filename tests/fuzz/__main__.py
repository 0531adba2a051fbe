"""``python -m tests.fuzz``: the long fuzz run; ``--seed N`` repeats a run, each failure has its curl command."""

from __future__ import annotations

import argparse
import secrets
import sys
import tempfile
import time
from pathlib import Path

from tests.fuzz.run_cases import run_cases


def main() -> int:
    """Run the cases that the command line asks for; return 1 if any reply does not match the contract."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=20_000)
    parser.add_argument("--examples", type=int, default=300, help="random cases an operation in each round")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**9))
    arguments = parser.parse_args()
    sys.stdout.write(f"seed {arguments.seed}\n")
    sys.stdout.flush()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="bucket-fuzz-") as root:
        result = run_cases(Path(root), cases=arguments.cases, seed=arguments.seed, examples=arguments.examples)
    sys.stdout.writelines(f"{failure}\n" for failure in result.failures)
    took_s = time.monotonic() - began
    verdict = "not as the contract says" if result.failures else "all as the contract says"
    sys.stdout.write(f"{result.cases} cases in {took_s:.0f} s, seed {arguments.seed}: {verdict}\n")
    return 1 if result.failures else 0


if __name__ == "__main__":
    sys.exit(main())
