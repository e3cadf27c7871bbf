"""What a script defines, at its top, under its guard and within functions, keeps its identity in workers and on its way back.

python by_value.py PACKAGE METHOD
"""

import abc
import asyncio
import collections
import dataclasses
import enum
import functools
import importlib
import logging
import sys
import threading
import typing

mp = importlib.import_module(sys.argv[1])
ctx = mp.get_context(sys.argv[2])
log = logging.getLogger("by_value")
STATE = {"n": 1}
G = None


class Point:
    def __init__(self, x=0):
        self.x = x


@dataclasses.dataclass
class Record:
    x: int


FIRST = Record(0)
NAMES = {Record: "record"}


def look(record):
    return isinstance(FIRST, type(record)), FIRST == Record(0), NAMES.get(type(record)), type(record) is Record


def _bind(name):
    setattr(sys.modules[__name__], name, type(name, (), {"__module__": __name__}))


_bind("Bound")
BOUND = vars(sys.modules[__name__])["Bound"]()


def of_bound(thing):
    return isinstance(BOUND, type(thing))


class Base(abc.ABC):
    @abc.abstractmethod
    def go(self): ...


def init(value):
    global G
    G = value


def read_global(_=0):
    return G


def classes(pool):
    class Local:
        def __init__(self, x):
            self.x = x

        def twin(self):
            return Local(self.x)

        def __eq__(self, other):
            return type(other) is type(self) and other.x == self.x

    class LocalError(Exception):
        pass

    @dataclasses.dataclass
    class Data:
        a: int
        b: str = "x"

    class Color(enum.Enum):
        RED = 1
        BLUE = 2

    Pair = collections.namedtuple("Pair", "a b")

    class Impl(Base):
        __slots__ = ("v",)

        def __init__(self, v):
            self.v = v

        def go(self):
            return self.v

        @staticmethod
        def static(x):
            return x + 1

        @classmethod
        def make(cls, x):
            return cls(x)

        @property
        def double(self):
            return self.v * 2

    class Meta(type):
        def __call__(cls, *args):
            made = super().__call__(*args)
            made.tag = 1
            return made

    class WithMeta(metaclass=Meta):
        pass

    def fail(x):
        raise LocalError(x)

    assert pool.map(lambda one: one.twin(), [Local(1), Local(2)]) == [Local(1), Local(2)]
    assert pool.map(lambda one: isinstance(one, Local), [Local(1)]) == [True]
    assert pool.map(lambda x: isinstance(x, Point), [Point()]) == [True]
    assert [type(p) is Point and p.x for p in pool.map(lambda x: Point(x), [5])] == [5]
    assert pool.map(lambda data: dataclasses.replace(data, a=data.a + 1), [Data(1)]) == [Data(2)]
    assert pool.map(lambda color: (color is Color.RED, Color.BLUE), [Color.RED]) == [(True, Color.BLUE)]
    assert pool.apply(lambda: Color.BLUE) is Color.BLUE
    assert pool.map(lambda pair: Pair(pair.b, pair.a), [Pair(1, 2)]) == [Pair(2, 1)]
    of_impl = pool.map(lambda i: (i.go(), i.static(1), Impl.make(3).double, isinstance(i, Base)), [Impl(4)])
    assert of_impl == [(4, 2, 6, True)]
    assert pool.apply(Impl(9).go) == 9
    assert type(pool.map(lambda _: WithMeta(), [0])[0]) is WithMeta
    assert pool.apply(lambda: Local) is Local and pool.apply(lambda: Point) is Point
    try:
        pool.apply(fail, (3,))
        raise AssertionError("no error")
    except LocalError as error:
        assert error.args == (3,)


def functions(pool):
    total = 5

    def add(x):
        return x + total

    def factorial(n):
        return 1 if n < 2 else n * factorial(n - 1)

    def plus_one(f):
        @functools.wraps(f)
        def wrapper(*args):
            return f(*args) + 1

        return wrapper

    @plus_one
    def decorated(x):
        return x * 2

    async def coroutine(x):
        return x

    def generator(n):
        yield from range(n)

    assert pool.map(add, [1]) == [6]
    # Each call has the closure as it is then, also while an earlier one is still at work.
    total = 7
    earlier = pool.map_async(add, range(1000), 1)
    total = 100
    later = pool.map_async(add, range(3), 1)
    assert earlier.get() == [i + 7 for i in range(1000)] and later.get() == [100, 101, 102]
    assert pool.apply(factorial, (6,)) == 720
    assert pool.map(decorated, [3]) == [7]
    assert pool.map(functools.partial(lambda a, b: a - b, 10), [1]) == [9]
    assert pool.apply(lambda n: list(generator(n)), (3,)) == [0, 1, 2]
    assert pool.apply(lambda: asyncio.run(coroutine(3))) == 3
    assert pool.apply(lambda *, k: k.x, (), {"k": Point(2)}) == 2
    assert pool.apply(lambda file=sys.stdout: file is sys.stdout)
    assert pool.apply(lambda hint: hint, (typing.Literal[1],)) == typing.Literal[1]

    def sent():
        return 1

    assert pool.map(lambda f: f, [sent])[0] is sent
    try:
        pool.apply(lambda: lambda: 3)
        raise AssertionError("no error")
    except mp.pool.MaybeEncodingError:
        pass


def globals_of_main(pool):
    if getattr(sys.modules["__main__"], "look", None) is look:  # a profiler runs the script as no module
        assert pool.map(look, [Record(1)]) == [(True, True, "record", True)]
        assert pool.map(of_bound, [BOUND]) == [True]
        assert pool.map(lambda record: look(record), [Record(1)]) == [(True, True, "record", True)]
    assert pool.map(lambda _: (G, read_global(), STATE["n"], log.name), [0]) == [(41, 41, 1, "by_value")]
    module = importlib.import_module("kept")
    # A function that a module has made works on that module there.
    assert pool.map(module.counting(), [0, 0], 2) == [1, 2] and module.COUNT == 0


def many_threads(pool):
    class Local:
        def __init__(self, x):
            self.x = x

    wrong = []

    def work(i):
        for k in range(10):
            made, point = pool.map(lambda x, k=k: (Local(x + i), Point(k)), [k])[0]
            if (type(made), made.x, type(point), point.x) != (Local, k + i, Point, k):
                wrong.append((i, k))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong, wrong


if __name__ == "__main__":

    class Guarded:
        def __init__(self, x):
            self.x = x

    def guarded(x):
        return Guarded(x.x + STEP)

    def tell(queue, x):
        queue.put((guarded(x).x, isinstance(x, Guarded)))

    STEP = 3
    with ctx.Pool(1) as pool:
        (result,) = pool.map(guarded, [Guarded(1)])
        assert type(result) is Guarded and result.x == 4
        assert pool.map(lambda g: isinstance(g, Guarded), [Guarded(1)]) == [True]
    queue = ctx.Queue()
    process = ctx.Process(target=lambda *args: tell(*args), args=(queue, Guarded(2)))
    process.start()
    assert queue.get(timeout=60) == (5, True)
    process.join()
    with ctx.Pool(2, init, (41,)) as pool:
        classes(pool)
        functions(pool)
        globals_of_main(pool)
        many_threads(pool)

        def late(x):
            return x + LATE

        LATE = 5
        assert pool.map(late, [1]) == [6]
    print("done")
