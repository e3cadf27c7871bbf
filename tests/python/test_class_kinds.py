"""Kinds of classes that are typed in, in workers that cannot load the program's main module."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

PROGRAM = """
import maniple, enum, functools, sys, threading
from typing import Generic, NamedTuple, NewType, TypedDict, TypeVar

T = TypeVar("T")
{definitions}
if __name__ == "__main__":
    with maniple.get_context({method!r}).Pool(1) as pool:
        {calls}
"""


def outcome(method: str, definitions: str, calls: str) -> str:
    text = PROGRAM.format(
        method=method,
        definitions=textwrap.dedent(definitions),
        calls=textwrap.indent(textwrap.dedent(calls), " " * 8).lstrip(),
    )
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout.strip()


typed_in = pytest.mark.better_than_standard("knows no definitions that are typed in under spawn")
methods = pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])


@typed_in
@methods
def test_named_tuples(method: str) -> None:
    definitions = """
        class P(NamedTuple):
            x: int
            y: str = "a"
            def both(self): return self.x, self.y
        class Sub(P):
            def more(self): return self.x + 1
        class G(NamedTuple, Generic[T]):
            z: T
        def f(p): return p, P(4), p.both(), Sub(3).more(), G(5).z, p._replace(y="b"), P._fields, isinstance(p, P)
    """
    expected = "(P(x=1, y='a'), P(x=4, y='a'), (1, 'a'), 4, 5, P(x=1, y='b'), ('x', 'y'), True) True"
    assert outcome(method, definitions, "r = pool.map(f, [P(1)])[0]; print(r, type(r[0]) is P)") == expected


@typed_in
@methods
def test_typed_dicts(method: str) -> None:
    definitions = """
        class A(TypedDict):
            a: int
        class B(A, total=False):
            b: str
        def f(d): return A(a=1), B(a=1, b="c"), B.__total__, sorted(B.__required_keys__), d
    """
    expected = "({'a': 1}, {'a': 1, 'b': 'c'}, False, ['a'], {'a': 2})"
    assert outcome(method, definitions, "print(pool.map(f, [A(a=2)])[0])") == expected


@typed_in
@methods
def test_new_types(method: str) -> None:
    definitions = """
        Number = NewType("Number", int)
        def f(number): return Number(3), Number.__name__, number
    """
    calls = "print(pool.map(f, [Number(2)])[0], pool.apply(lambda kind: kind(5), (Number,)))"
    assert outcome(method, definitions, calls) == "(3, 'Number', 2) 5"


@typed_in
@methods
def test_enumerations_with_aliases_and_combinations(method: str) -> None:
    definitions = """
        class E(enum.Enum):
            A = 1
            B = 1
            C = 2
        class F(enum.Flag):
            A = 1
            B = 2
            AB = 3
        class I(enum.IntEnum):
            X = enum.auto()
            Y = enum.auto()
        def f(e): return e is E.A, E.B is E.A, list(E.__members__), F.A | F.B is F.AB, F.AB, I.Y + 1, E.C
    """
    expected = "(True, True, ['A', 'B', 'C'], True, <F.AB: 3>, 3, <E.C: 2>) True"
    assert outcome(method, definitions, "r = pool.map(f, [E.A])[0]; print(r, r[-1] is E.C)") == expected


@typed_in
@methods
def test_partial_methods(method: str) -> None:
    definitions = """
        class C:
            def both(self, a, b=0): return a, b
            one = functools.partialmethod(both, 1)
            two = functools.partialmethod(both, b=2)
        def f(c): return c.one(2), c.two(3)
    """
    assert outcome(method, definitions, "print(pool.map(f, [C()]))") == "[((1, 2), (3, 2))]"


@typed_in
@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_an_attribute_that_cannot_be_sent_is_named(method: str) -> None:
    definitions = """
        class C:
            lock = threading.Lock()
            def go(self): return 1
        def f(c): return c.go()
    """
    calls = """
        try:
            print(pool.map(f, [C()]))
        except TypeError as error:
            print(error)
    """
    told = outcome(method, definitions, calls)
    assert "the class 'C' of __main__ goes by value" in told and "its attribute 'lock' cannot be sent" in told


@typed_in
@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_a_process_says_why_it_lacks_a_value(method: str) -> None:
    text = f"""if True:
        import maniple
        large = bytes(1 << 20)
        class Item:
            def use(self): return len(large)
        def child(queue): queue.get().use()
        context = maniple.get_context({method!r})
        queue = context.Queue()
        process = context.Process(target=child, args=(queue,))
        process.start()
        queue.put(Item())
        process.join()
    """
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, timeout=60)
    assert "NameError: name 'large' is not defined: 'large' of __main__ did not come along" in done.stderr
    assert "too large to be sent beforehand" in done.stderr
