"""tqdm around imap_unordered."""

import sys

import maniple
from tqdm import tqdm


def work(number):
    return number * number


if __name__ == "__main__":
    with maniple.get_context(sys.argv[1]).Pool(2) as pool:
        results = list(tqdm(pool.imap_unordered(work, range(200), chunksize=5), total=200))
    print(sorted(results) == [number * number for number in range(200)])
