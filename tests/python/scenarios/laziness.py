"""How much of its input imap takes ahead of what was asked of it."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator

from . import tasks
from .bench import Bench
from .registry import scenario

PLENTY = 200_000
ITERATORS = ["imap", "imap_unordered"]


class Counted:
    """An iterable that knows how many of its items were taken."""

    def __init__(self, items: int) -> None:
        self.taken = 0
        self.items = items

    def __iter__(self) -> Iterator[int]:
        for item in range(self.items):
            self.taken += 1
            yield item


def abandon_after_three(bench: Bench, call: str, bound: int, **options: int) -> None:
    pool = bench.mp.Pool(2)
    source = Counted(PLENTY)
    iterator = getattr(pool, call)(tasks.identity, source, **options)
    taken = list(itertools.islice(iterator, 3))
    assert taken == [0, 1, 2] or call == "imap_unordered" and len(set(taken)) == 3, taken
    time.sleep(0.5)  # time enough for a greedy feeder to show itself
    assert source.taken <= bound, f"{source.taken} items were eaten to deliver 3 (at most {bound} expected)"
    # The abandoned iteration must not block what follows.
    bench.assert_sound(pool)
    del iterator
    assert source.taken <= bound, f"{source.taken} items were eaten once the iterator was dropped"
    bench.at("terminate with an abandoned iteration")
    pool.terminate()
    pool.join()


@scenario("{call} of 200,000 items of which 3 are taken", call=ITERATORS)
def default_window(bench: Bench, call: str) -> None:
    abandon_after_three(bench, call, 1_100)


@scenario("{call}(buffersize=16) of 200,000 items of which 3 are taken", call=ITERATORS)
def given_window(bench: Bench, call: str) -> None:
    abandon_after_three(bench, call, 16 + 3 + 5, buffersize=16)


@scenario("{call}(buffersize=) taken to its end", call=ITERATORS)
def window_to_the_end(bench: Bench, call: str) -> None:
    with bench.pool() as pool:
        for buffersize, chunksize in ((1, 1), (2, 1), (7, 3), (5_000, 1)):
            bench.at(f"buffersize={buffersize}, chunksize={chunksize}")
            results = list(getattr(pool, call)(tasks.identity, range(300), chunksize, buffersize=buffersize))
            assert (results if call == "imap" else sorted(results)) == list(range(300))


@scenario("{call} of an endless generator", call=ITERATORS)
def endless(bench: Bench, call: str) -> None:
    pool = bench.mp.Pool(2)
    iterator = getattr(pool, call)(tasks.identity, itertools.count())
    taken = list(itertools.islice(iterator, 5_000))
    assert taken == list(range(5_000)) or call == "imap_unordered" and len(set(taken)) == 5_000
    bench.at("terminate with an endless input")
    pool.terminate()
    pool.join()
