"""``python -m tests.fuzz``: the long run; ``--seed N`` plays one again, each failure comes with its curl."""

from __future__ import annotations

import argparse
import secrets
import sys
import tempfile
import time
from pathlib import Path

from tests.fuzz.run_cases import play


def main() -> int:
    """Play as the command line asks; answer 1 where anything was answered that is not as the contract says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=20_000)
    parser.add_argument("--examples", type=int, default=300, help="random cases an operation in each round")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**9))
    asked = parser.parse_args()
    sys.stdout.write(f"seed {asked.seed}\n")
    sys.stdout.flush()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="bucket-fuzz-") as root:
        played = play(Path(root), cases=asked.cases, seed=asked.seed, examples=asked.examples)
    sys.stdout.writelines(f"{failure}\n" for failure in played.failures)
    took_s = time.monotonic() - began
    verdict = "not as the contract says" if played.failures else "all as the contract says"
    sys.stdout.write(f"{played.cases} cases in {took_s:.0f} s, seed {asked.seed}: {verdict}\n")
    return 1 if played.failures else 0


if __name__ == "__main__":
    sys.exit(main())
