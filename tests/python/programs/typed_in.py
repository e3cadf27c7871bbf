"""Runs the cells below as if they were typed: in a notebook, at a prompt, through `-c` or through the standard input.

    python typed_in.py notebook|ipython|prompt|c|stdin METHOD PACKAGE

Prints what the cells print.
"""

import ast
import subprocess
import sys

CELLS = [
    """
import importlib, os, sys, threading
import numpy as np
mp = importlib.import_module(PACKAGE)
ctx = mp.get_context(METHOD)
""",
    """
class Odd(Exception):
    def __init__(self, x):
        super().__init__(x)
        self.x = x

class Point:
    scale = 2
    def __init__(self, x):
        self.x = x
    def double(self):
        return Point(self.x * Point.scale)
    def __eq__(self, other):
        return type(self) is type(other) and self.x == other.x
""",
    """
G = 0
N = 10
big = np.arange(3_000_000)
lock = ctx.Lock()
counter = ctx.Value("i", 0)
opened = open(os.devnull)
of_threads = threading.Lock()

def init(v):
    global G
    G = v

def use(x):
    return G + x

def helper(x):
    return x + 1

def chain(x):
    return helper(helper(x))

def bad(x):
    raise Odd(x)

def caught(x):
    try:
        bad(x)
    except Odd as error:
        return error.x

def mine(point):
    return isinstance(point, Point) and isinstance(point.double(), Point)

def make(x):
    return Point(x)

def total(i):
    return int(big[i:i + 2].sum())

def count(_):
    with lock:
        counter.value += 1
    return True

def factorial(n):
    return 1 if n == 0 else n * factorial(n - 1)

def ten(_):
    return N

def locked_for_threads(_):
    with of_threads:
        return "locked"

def child(queue, point):
    queue.put((G, point.double(), os.path.basename("a/b")))

def echo(asked, answers):
    # Names no class: what comes brings its own.
    answers.send(type(asked.get()).__name__)
    answers.send(asked.get())
""",
    """
pool = ctx.Pool(2, init, (40,))
print("global of the initializer", pool.map(use, [1, 2]), list(pool.imap(lambda x: G + x, [3])))
print("functions", pool.map(chain, [1, 2], 1), pool.apply(factorial, (10,)), pool.map(lambda x: helper(x), [5]))
print("classes there", pool.map(mine, [Point(1), Point(2)]), pool.map(lambda p: type(p) is Point, [Point(3)]))
print("classes here", pool.map(make, [5, 6]) == [Point(5), Point(6)], pool.apply(lambda: Point) is Point)
try:
    pool.apply(bad, (7,))
except Odd as error:
    print("exception", error.x, pool.map(caught, [8]))

print("array", [pool.apply(total, (i,)) for i in range(3)])
print("lock", all(pool.map(count, range(10), 1)), counter.value)
print("starmap", pool.starmap(lambda a, b: a.x + b, [(Point(1), 2)]))
""",
    """
try:
    print("thread lock", pool.apply(locked_for_threads, (0,)))
except NameError as error:
    print("thread lock", "pickle" in str(error))

try:
    pool.apply(type, (opened,))
except TypeError:
    print("open file refused")
""",
    """
def later(x):
    return Later(x)

class Later(Point):
    pass

def helper(x):
    return x + 100

N = 11
print("defined later", [type(x) is Later and x.x for x in pool.map(later, [1, 2])], pool.map(lambda p: type(p) is Later, [Later(1)]))
print("defined anew", pool.map(chain, [1]), pool.map(lambda x: chain(x), [1]))
print("as the workers had it", set(pool.map(ten, range(4), 1)))
""",
    """
queue = ctx.Queue()
process = ctx.Process(target=child, args=(queue, Point(3)))
process.start()
got = queue.get(timeout=60)
process.join()
print("process", got[1] == Point(6), got[2], process.exitcode)
asked, (here, there) = ctx.SimpleQueue(), ctx.Pipe()
process = ctx.Process(target=echo, args=(asked, there))
process.start()
asked.put(Odd(1))
asked.put([Point(9)])
print("queue", here.recv(), here.recv() == [Point(9)])
process.join()
""",
    """
import copyreg, ctypes, enum, functools
from dataclasses import dataclass

@dataclass
class Pair:
    a: int
    b: int = 2

class Cache:
    hits = 0

class Registry:
    plugins = {}
    def __init_subclass__(cls):
        if cls.__name__ in Registry.plugins:
            raise TypeError("registered twice")
        Registry.plugins[cls.__name__] = cls

class Plugin(Registry):
    def run(self):
        return "ran"

class Grown:
    def __init__(self, x):
        self.x = x

@functools.lru_cache
def cached(x):
    return x * 3

@functools.singledispatch
def kind(x):
    return "object"

@kind.register
def _(x: int):
    return "int"

def grow(grown):
    return Grown, (grown.x + 1,)

copyreg.pickle(Grown, grow)

class Lazy:
    @functools.cached_property
    def value(self):
        return 42

class Planet(enum.Enum):
    EARTH = (5.976e24, 6378140)
    def __init__(self, mass, radius):
        self.mass = mass

class Negator:
    @functools.singledispatchmethod
    def negate(self, x):
        return "?"
    @negate.register
    def _(self, x: int):
        return -x

class Structure(ctypes.Structure):
    _fields_ = [("x", ctypes.c_int)]

class Slotted:
    __slots__ = ("v",)
    def __init__(self, v):
        self.v = v

def kinds(planet, negator, structure, slotted):
    return planet.mass, planet is Planet.EARTH, negator.negate(1), structure.x, hasattr(slotted, "__dict__"), Slotted(5)

def hit(_):
    Cache.hits += 1
    return Cache.hits

def run(plugin):
    return plugin.run(), type(plugin) is Registry.plugins["Plugin"]

other = ctx.Pool(1)
print("dataclass", other.map(lambda p: (isinstance(p, Pair), p == Pair(1), Pair(3, 4)), [Pair(1)]) == [(True, True, Pair(3, 4))])
print("class attribute", [other.apply(functools.partial(hit, i)) for i in range(2)], [other.apply(lambda: hit(i)) for i in range(2)])
print("cached property", other.map(lambda lazy: lazy.value, [Lazy()]))
mass, same, negated, x, has_dict, slotted = other.apply(kinds, (Planet.EARTH, Negator(), Structure(3), Slotted(1)))
print("kinds", mass, same, negated, x, has_dict, type(slotted) is Slotted, slotted.v)
print("registered once", other.map(run, [Plugin(), Plugin()]))
print("cached", other.map(cached, [1, 2]), other.apply(lambda: (cached(1), cached.cache_info().hits > 0)))
print("dispatched", other.map(kind, [1, "a"]), other.apply(lambda: kind(1)))
print("copyreg", other.apply(lambda grown: grown, (Grown(1),)).x)
other.terminate()
other.join()
""",
    """
pool.close()
pool.join()
pool = ctx.Pool(1, maxtasksperchild=1)
print("new workers", pool.map(use, [1, 2, 3], 1))
pool.terminate()
pool.join()
opened.close()
print("end")
""",
]


def python(*arguments, text=None):
    done = subprocess.run([sys.executable, *arguments], input=text, text=True, capture_output=True)
    if "Traceback" in done.stderr or done.returncode:
        sys.stderr.write(done.stderr)
    return done.stdout


def statements(cells):
    """The cells' statements, each with the empty line that a prompt takes for its end."""
    for cell in cells:
        for node in ast.parse(cell).body:
            first = min([node.lineno, *(line.lineno for line in getattr(node, "decorator_list", []))])
            lines = cell.splitlines()[first - 1 : node.end_lineno]
            yield "\n".join(line for line in lines if line.strip()) + "\n\n"


def notebook(cells):
    import nbclient
    import nbformat

    sheet = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    nbclient.NotebookClient(sheet, timeout=80, kernel_name="python3").execute()
    return "".join(output.get("text", "") for cell in sheet.cells for output in cell.outputs if output.name == "stdout")


def main(kind, method, package):
    cells = [f"PACKAGE, METHOD = {package!r}, {method!r}\n", *(cell.strip("\n") + "\n" for cell in CELLS)]
    if kind == "notebook":
        out = notebook(cells)
    elif kind == "ipython":
        lines = "".join(f"exec({cell!r})\n" for cell in cells)
        out = python("-m", "IPython", "--simple-prompt", "--no-banner", "--quick", text=lines + "exit\n")
    elif kind == "prompt":
        out = python("-i", "-q", text="".join(statements(cells)) + "exit()\n")
    elif kind == "c":
        out = python("-c", "".join(cells))
    else:
        out = python("-", text="".join(cells))
    print(out)


if __name__ == "__main__":
    main(*sys.argv[1:])
