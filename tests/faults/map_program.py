"""A program that maps a basket over numbered inputs with a state file, and prints the number of each result it has.

Arguments: the server's address, the number of inputs, the concurrency, the state file, the file that runs append to.
"""

from __future__ import annotations

import sys

from bucket_client import Bucket


def main() -> None:
    """Print a line for each result, at once."""
    url, count, concurrency, state, counted = sys.argv[1:]
    inputs = ({"number": number, "file": counted} for number in range(int(count)))
    with Bucket(url) as bucket:
        for result in bucket.map({"agents": ["counter"]}, inputs, concurrency=int(concurrency), state=state):
            assert result.execution is not None, result.error
            assert result.execution.result["number"] == result.index
            sys.stdout.write(f"{result.index}\n")  # one write: a kill must not come between a number and its end
            sys.stdout.flush()


if __name__ == "__main__":
    main()
