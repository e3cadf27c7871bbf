import importlib
import os
import sys

NAME = os.environ["PROGRAM_PACKAGE"]
mp = importlib.import_module(NAME)


class Point:
    def __init__(self, x):
        self.x = x


def double(point):
    return Point(point.x * FACTOR)


def tell(queue, point):
    queue.put(double(point))


FACTOR = 2


def main():
    ctx = mp.get_context(os.environ["PROGRAM_METHOD"])
    with ctx.Pool(2) as pool:
        made = pool.map(double, [Point(1), Point(2)])
        print([type(point) is Point and point.x for point in made], end=" ")
        print(pool.map(lambda x: isinstance(x, Point), [Point(1)]), end=" ")
    queue = ctx.Queue()
    process = ctx.Process(target=tell, args=(queue, Point(5)))
    process.start()
    got = queue.get(timeout=60)
    process.join()
    print(type(got) is Point and got.x, process.exitcode)
    sys.stdout.flush()


if __name__ == "__main__":
    main()
