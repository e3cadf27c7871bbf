"""A whole program: import the library, start a pool, one map, exit.

Usage: oneshot.py LIBRARY START_METHOD WORKERS. Prints the sum of the results.
"""

from __future__ import annotations

import sys

import adapters
import tasks


def main(name: str, method: str, workers: int) -> None:
    library = adapters.load(name)
    with library.session(workers, method) as pool:
        print(sum(library.map(pool, tasks.double, list(range(100)))))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
