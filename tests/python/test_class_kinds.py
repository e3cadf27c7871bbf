"""Kinds of classes that are typed in, in workers that cannot load the program's main module."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

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
def test_the_error_names_an_unsendable_attribute(method: str) -> None:
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
    assert "the class 'C' of __main__ is sent by value" in told and "its attribute 'lock' cannot be sent" in told


@typed_in
@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_an_error_contains_the_reason_for_a_missing_value(method: str) -> None:
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
    assert "NameError: name 'large' is not defined: 'large' of __main__ was not sent, because" in done.stderr
    assert "too large to be sent at the start" in done.stderr


@typed_in
@methods
def test_derived_types_of_ctypes(method: str) -> None:
    definitions = """
        import ctypes
        row = (ctypes.c_double * 3)(1, 2, 3)
        Callback, Pointer = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int), ctypes.POINTER(ctypes.c_int)
        def f(_): return row[1], Callback(lambda v: v + 1)(2), Pointer(ctypes.c_int(4))[0]
    """
    assert outcome(method, definitions, "print(pool.map(f, [1]))") == "[(2.0, 3, 4)]"


@typed_in
@methods
def test_functions_keep_their_identity_and_state(method: str) -> None:
    definitions = """
        def count(_): count.calls += 1; return count.calls
        count.calls = 0
        def gather(x, seen=[]): seen.append(x); return len(seen)
        def other(_): return 0
        class K:
            def m(self, seen=[]): seen.append(1); return len(seen)
        table, hooks = {count: "count", other: "other"}, [count]
        def look(func): return table.get(func), func in hooks, func is count
        def method(m): return m.__func__ is K.m
    """
    calls = """
        print([pool.apply(count, (1,)), pool.apply(lambda: count(1)), pool.apply(functools.partial(count), (1,))])
        print([pool.apply(lambda: gather(1)) for _ in range(3)], [pool.apply(K().m) for _ in range(3)])
        print(pool.apply(look, (count,)), pool.apply(look, (other,)), pool.apply(method, (K().m,)))
    """
    expected = "[1, 2, 3]\n[1, 2, 3] [1, 2, 3]\n('count', True, True) ('other', False, False) True"
    assert outcome(method, definitions, calls) == expected


@typed_in
@methods
def test_a_newer_function_does_not_remake_classes_that_use_it(method: str) -> None:
    definitions = """
        def helper(): return "old"
        class P:
            n = 0
            def m(self): return helper()
            @classmethod
            def inc(cls): cls.n += 1; return cls.n
        class Q(P): pass
        def tool(): return helper()
        origin, sub, table = P(), Q(), {P: "p", tool: "tool"}
        def work(o):
            same = isinstance(origin, P), type(o) is type(origin), isinstance(sub, P), issubclass(Q, P)
            return all(same), table.get(type(o)), table.get(tool), P.inc(), o.m(), tool()
    """
    calls = """
        print(pool.map(work, [P()])[0])
        def helper(): return "new"
        print(pool.map(work, [P()])[0])
    """
    assert (
        outcome(method, definitions, calls)
        == "(True, 'p', 'tool', 1, 'old', 'old')\n(True, 'p', 'tool', 2, 'new', 'new')"
    )


@typed_in
@pytest.mark.parametrize("how", ["script", "typed in"])
@methods
def test_objects_whose_attributes_raise(how: str, method: str, tmp_path: Path) -> None:
    text = f"""if True:
        import maniple
        class Lazy:
            def __getattr__(self, name): raise RuntimeError("no " + name)
            def __len__(self): raise RuntimeError("no length")
            @property
            def nbytes(self): raise RuntimeError("no bytes")
            def __reduce__(self): return Lazy, ()
        client, hooks = Lazy(), [Lazy()]
        class K:
            own = client
            def go(self): return 5
        def work(x): return x if client is None else x + 1
        if __name__ == "__main__":
            with maniple.get_context({method!r}).Pool(1) as pool:
                for step in (work, lambda x: work(x)):
                    print(pool.map(step, [1]))
                print(pool.apply(lambda k: k.go(), (K(),)), pool.apply(K().go))
    """
    program = tmp_path / "program.py"
    program.write_text(text)
    command = [sys.executable, *(["-c", text] if how == "typed in" else [str(program)])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("[2]\n[2]\n5 5\n", "")


@typed_in
@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_many_definitions_do_not_slow_a_start_beyond_measure(method: str) -> None:
    # Each of them refers to all others: a pickle for each would contain all of them.
    text = f"""if True:
        import maniple, maniple._impl.serialization.by_value as by_value
        count = 60
        for i in range(count):
            exec(f"class C{{i}}:\\n    def m(self): return C{{(i + 1) % count}}, f{{i * 7 % count}}")
            exec(f"def f{{i}}(): return f{{(i + 1) % count}}, C{{i}}")
        seen, function = [], by_value.ByValuePickler._function
        def counted(self, func):
            seen.append(func)
            return function(self, func)
        by_value.ByValuePickler._function = counted
        process = maniple.get_context({method!r}).Process(target=abs, args=(1,))
        process.start()
        process.join()
        print(process.exitcode, len(seen) < 10 * count)
    """
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("0 True\n", "")


@typed_in
def test_starting_a_process_causes_no_warning() -> None:
    text = """if True:
        import gc, maniple
        process = maniple.get_context("spawn").Process(target=lambda: None)
        process.start()
        process.join()
        del process
        gc.collect()
    """
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


@typed_in
@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_an_object_may_have_bytes_and_no_length(method: str) -> None:
    text = f"""if True:
        import maniple
        class Image:
            nbytes = 1 << 20
            def __init__(self): self.data = list(range(10))
        image = Image()
        class Item:
            def use(self): return len(image.data)
        def child(queue): print(queue.get().use(), flush=True)
        context = maniple.get_context({method!r})
        queue = context.Queue()
        process = context.Process(target=child, args=(queue,))
        process.start()
        queue.put(Item())
        process.join()
    """
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("10\n", "")
