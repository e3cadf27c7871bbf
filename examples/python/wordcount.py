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

import maniple

WORD = re.compile(r"\w+")


def count_words(path: str) -> Counter[str]:
    """The words of one file and how often each stands there; nothing for a file that is not text."""
    try:
        with open(path, encoding="utf-8") as file:
            return Counter(WORD.findall(file.read()))
    except (OSError, UnicodeDecodeError):
        return Counter()


def files_under(folder: str) -> list[str]:
    return sorted(
        path for place, _, names in os.walk(folder) for path in (os.path.join(place, name) for name in names)
        if os.path.isfile(path)
    )


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


def timed(function, *args) -> tuple[Counter[str], float]:
    begin = time.perf_counter()
    return function(*args), time.perf_counter() - begin


def main() -> None:
    folder = sys.argv[1] if len(sys.argv) > 1 else sysconfig.get_path("stdlib")
    files = files_under(folder)
    if not files:
        sys.exit(f"{folder}: no files there")
    print(f"{len(files):,} files under {folder}")
    count_alone(files)  # once untimed, so that nobody's time has the disk's in it

    alone, alone_time = timed(count_alone, files)
    ours, our_time = timed(count_on, maniple, files)
    standard, standard_time = timed(count_on, multiprocessing, files)
    if not alone == ours == standard:
        sys.exit("the three counts differ")

    print(f"in this process       {alone_time * 1e3:8.0f} ms")
    print(f"maniple.Pool          {our_time * 1e3:8.0f} ms   {alone_time / our_time:.2f} times the speed")
    print(f"multiprocessing.Pool  {standard_time * 1e3:8.0f} ms   {alone_time / standard_time:.2f} times the speed")
    print(f"maniple takes {our_time / standard_time:.2f} of the standard pool's time, start and end of the workers included")
    often = ", ".join(f"{word} {count:,}" for word, count in ours.most_common(5))
    print(f"equal counts: {ours.total():,} words, {len(ours):,} different; most often {often}")


if __name__ == "__main__":
    main()
