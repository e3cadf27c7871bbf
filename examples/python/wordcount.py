"""Counts the words of every text file under a folder: alone, on maniple's pool, on the standard package's.

python wordcount.py [FOLDER]        the Python standard library's own sources, if no folder is named
"""

import multiprocessing
import os
import re
import sys
import sysconfig
import time
from collections import Counter
from collections.abc import Callable
from functools import partial

import maniple

# ASCII letters and digits, underscores, and all characters outside ASCII. The Rust example counts the same words; the
# two languages' own tables of letters differ.
WORD = re.compile(r"[A-Za-z0-9_\x80-\U0010ffff]+")
# What lies among the standard library's own sources, but was put there by pip and by the interpreter.
INSTALLED = frozenset({"site-packages", "dist-packages", "__pycache__"})


def count_words(path: str) -> Counter[str]:
    """The words of one file with their numbers; nothing for a file that is not text."""
    try:
        with open(path, encoding="utf-8") as file:
            return Counter(WORD.findall(file.read()))
    except (OSError, UnicodeDecodeError):
        return Counter()


def files_under(folder: str, without: frozenset[str] = frozenset()) -> list[str]:
    """Every file below `folder`, without links and without what lies in folders of the names `without`."""
    found = []
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(set(folders) - without)
        found += [os.path.join(place, name) for name in sorted(names)]
    return [path for path in found if os.path.isfile(path) and not os.path.islink(path)]


def count_alone(files: list[str]) -> Counter[str]:
    total: Counter[str] = Counter()
    for path in files:
        total.update(count_words(path))
    return total


def count_on(package, files: list[str]) -> Counter[str]:
    """The same on a pool of `package`; nothing here knows which of the two it is."""
    total: Counter[str] = Counter()
    with package.Pool() as pool:
        for counts in pool.imap_unordered(count_words, files):
            total.update(counts)
    return total


def in_turn(ways: dict[str, Callable[[], Counter[str]]], rounds: int = 3) -> dict[str, float]:
    """Each way's best time in seconds. They take turns, so that a busy minute of the machine falls on all alike."""
    best = dict.fromkeys(ways, float("inf"))
    for _ in range(rounds):
        results = []
        for name, way in ways.items():
            begin = time.perf_counter()
            results.append(way())
            best[name] = min(best[name], time.perf_counter() - begin)
        if any(result != results[0] for result in results):
            sys.exit("the counts differ")
    return best


def main() -> None:
    if len(sys.argv) > 1:
        folder = sys.argv[1]
        files = files_under(folder)
    else:
        folder = sysconfig.get_path("stdlib")
        files = files_under(folder, without=INSTALLED)
    if not files:
        sys.exit(f"{folder}: no files there")
    print(f"{len(files):,} files under {folder}")

    total = count_alone(files)  # untimed: reads the files, so that no measured time includes the disk's
    times = in_turn(
        {
            "in this process": partial(count_alone, files),
            "maniple.Pool": partial(count_on, maniple, files),
            "multiprocessing.Pool": partial(count_on, multiprocessing, files),
        }
    )
    alone, ours, standard = times.values()
    for name, seconds in times.items():
        print(f"{name:<21}{seconds * 1e3:8.0f} ms   {alone / seconds:.2f} times the speed")
    print(
        f"maniple's pool took {ours / standard:.2f} of the standard one's time, start and end of the workers included"
    )
    often = ", ".join(f"{word} {count:,}" for word, count in total.most_common(5))
    print(f"equal counts: {total.total():,} words, {len(total):,} different; most often {often}")


if __name__ == "__main__":
    main()
