"""Data of `__main__` that functions carry to workers which cannot load the program's main module."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest


def run(method: str, program: str) -> str:
    """Return the output of a `-c` program; `Pool` makes its pools."""
    head = f"import maniple, os, sys\nPool = maniple.get_context({method!r}).Pool\n"
    command = [sys.executable, "-c", head + textwrap.dedent(program)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout


METHODS = ["spawn", "forkserver"]

COUNTED = """
class Table:
    def __init__(self, size): self.cells = list(range(size))
    def __getstate__(self):
        pickled.append(len(self.cells))
        return self.__dict__
class Item:
    def __init__(self, at): self.at = at
    def look(self): return table.cells[self.at]
def look(item): return item.look()
def twice(at): return 2 * table.cells[at]
pickled = []
table = Table({size})
"""


@pytest.mark.better_than_standard("knows no definitions that are typed in under spawn")
@pytest.mark.parametrize("method", METHODS)
def test_a_large_value_is_pickled_once_for_all_its_users(method: str) -> None:
    program = COUNTED.format(size=50_000) + textwrap.dedent("""
        from functools import partial
        with Pool(2) as pool:
            pickled.clear()
            print(pool.map(look, [Item(at) for at in range(20)], chunksize=1)[-1])
            print([pool.apply(lambda at: table.cells[at], (at,)) for at in range(5)])
            print([pool.apply(Item(at).look) for at in range(5)], pool.apply(partial(twice, 4)), pool.apply(twice, (5,)))
        print(pickled)
    """)
    assert run(method, program) == "19\n[0, 1, 2, 3, 4]\n[0, 1, 2, 3, 4] 8 10\n[50000]\n"


@pytest.mark.better_than_standard("knows no definitions that are typed in under spawn")
@pytest.mark.parametrize("method", ["fork", *METHODS])
def test_a_newer_value_replaces_a_sent_value(method: str) -> None:
    program = """
        with Pool(1) as pool:
            exec('''def seen(): return len(data)\\ndef put(new): global data; data = new''')
            for size in (3, 200_000, 200_000, 100_000, 2):
                data = bytes(size)
                print(pool.apply(lambda: len(data)), pool.apply(seen), end=' ')
            pool.apply(put, ([1],))
            print(pool.apply(seen), end=' ')  # its own, now
            data = bytes(70_000)
            print(pool.apply(seen), pool.apply(lambda: len(data)))
    """
    assert run(method, program) == "3 3 200000 200000 200000 200000 100000 100000 2 2 1 1 1\n"


@pytest.mark.better_than_standard("knows no definitions that are typed in under spawn")
@pytest.mark.parametrize("method", METHODS)
def test_a_workers_change_in_place_stays(method: str) -> None:
    program = """
        seen = list(range(30_000))
        def note(number):
            seen.append(number)
            return len(seen)
        with Pool(1) as pool:
            print([pool.apply(lambda: note(1)), pool.apply(note, (2,)), pool.apply(lambda: note(3)), len(seen)])
    """
    assert run(method, program) == "[30001, 30002, 30003, 30000]\n"


@pytest.mark.better_than_standard("knows no definitions that are typed in under spawn")
@pytest.mark.parametrize("method", METHODS)
def test_a_large_value_may_lead_back_to_itself(method: str) -> None:
    program = """
        class Node:
            def __init__(self, number): self.number = number
            def first(self): return nodes[0].number + len(others)
        class Other:
            def count(self): return len(nodes)
        nodes = [Node(number) for number in range(5000)]
        others = [Other() for _ in range(5000)]
        with Pool(1) as pool:
            print(pool.apply(lambda: (nodes[3].first(), others[1].count())), pool.apply(nodes[1].first))
    """
    assert run(method, program) == "(5000, 5000) 5000\n"


@pytest.mark.better_than_standard("knows no definitions that are typed in under spawn")
@pytest.mark.parametrize("method", METHODS)
def test_arrays_arrive_as_they_are(method: str) -> None:
    program = """
        import numpy as np
        array, frozen = np.arange(200_000.0), np.arange(100_000)
        frozen.flags.writeable = False
        strided, both = array.reshape(400, 500)[:, ::2], (array, array)
        with Pool(1) as pool:
            print(pool.apply(lambda: (bool(array.sum() == 19999900000.0), array.flags.writeable, frozen.flags.writeable)))
            print(pool.apply(lambda: (bool(strided.sum() == sum(range(0, 200_000, 2))), both[0] is both[1])))
    """
    pytest.importorskip("numpy")
    assert run(method, program) == "(True, True, False)\n(True, True)\n"


@pytest.mark.better_than_standard("knows no definitions that are typed in under spawn")
@pytest.mark.parametrize("method", METHODS)
def test_a_task_reports_the_value_that_it_needs_and_that_cannot_be_sent(method: str) -> None:
    program = """
        import threading
        rows = [threading.Lock(), *range(50_000)]
        size = bytes(100_000)
        with Pool(1) as pool:
            print(pool.apply(lambda: len(size) if size else rows))
            try:
                pool.apply(lambda: rows)
            except NameError as error:
                print("'rows' of __main__ was not sent, because" in str(error), "cannot pickle '_thread.lock'" in str(error))
    """
    assert run(method, program) == "100000\nTrue True\n"


FILES = """
def files(): return sum('maniple-value' in os.readlink(entry.path) for entry in os.scandir('/proc/self/fd') if os.path.islink(entry.path))
"""


@pytest.mark.better_than_standard("knows no definitions that are typed in under spawn")
@pytest.mark.parametrize("method", METHODS)
def test_memory_is_freed_with_its_value_and_the_pool(method: str) -> None:
    program = FILES + textwrap.dedent("""
        pool, other = Pool(1), Pool(1)
        counts = []
        for size in range(6):
            data = bytes(100_000 + size)
            print(other.apply(lambda: len(data)), pool.apply(lambda: len(data)), end=' ')
            counts.append(files())
        print(max(counts) <= 4, end=' ')  # the newest and the one before, of each pool
        pool.terminate()
        print(files() <= 2, end=' ')
        other.close()
        other.join()
        print(files())
    """)
    sizes = " ".join(f"{size} {size}" for size in range(100_000, 100_006))
    assert run(method, program) == f"{sizes} True True 0\n"


@pytest.mark.better_than_standard("knows no definitions that are typed in under spawn")
@pytest.mark.parametrize("method", METHODS)
def test_a_program_that_ends_at_once_prints_nothing(method: str) -> None:
    program = """
        data = bytes(100_000)
        pool = Pool(1)
        print(pool.apply(lambda: len(data)), flush=True)
        os._exit(0)
    """
    assert run(method, program) == "100000\n"


@pytest.mark.better_than_standard("knows no definitions that are typed in under spawn")
@pytest.mark.parametrize("method", METHODS)
def test_a_closed_descriptor_is_reported_and_no_other_file_is_read(method: str, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_bytes(bytes(200_000))
    program = f"""
        data = list(range(30_000))
        def use(): return len(data)
        with Pool(1, maxtasksperchild=1) as pool:
            print(pool.apply(use))
            own = [int(name) for name in os.listdir('/proc/self/fd')
                   if os.path.islink('/proc/self/fd/' + name) and 'maniple-value' in os.readlink('/proc/self/fd/' + name)]
            os.close(own[0])
            file = os.open({str(other)!r}, os.O_RDONLY)
            try:
                print(file == own[0], pool.apply(use))
            except LookupError as error:
                print(error)
        print(os.fstat(file).st_size)
    """
    told = "a value of __main__ that this task uses no longer exists: its pool has ended, or the program has closed "
    assert run(method, program) == f"30000\n{told}descriptors of maniple\n200000\n"


REACHED = """
import functools
def g(_=0): return new[0]
table = [g] * {count}
class K:
    def m(self): return new[0]
    @classmethod
    def c(cls): return new[0]
class Sub(K): pass
thing, part = K(), functools.partial(g)
def wrapped(f):
    @functools.wraps(f)
    def wrapper(x): return f(x) + new[0]
    return wrapper
@wrapped
def by_wrapper(x): return 0
def by_name(x): return new[0]
def by_table(x): return table[0]()
def by_thing(x): return thing.m()
def by_partial(x): return part()
def by_default(x, h=g): return h()
def by_base(x): return Sub.c()
with Pool(1, maxtasksperchild=3) as pool:
    for f in (by_wrapper, by_name, by_table, by_thing, by_partial, by_default, by_base):
        for number in range(4):
            new = [number] * {size}
            print(pool.map(f, [1])[0], pool.apply(g), end=' ')
"""


@pytest.mark.better_than_standard("knows no definitions that are typed in under spawn")
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("count", "size"), [(1, 1), (1, 60_000), (30_000, 1), (30_000, 60_000)])
def test_a_newer_value_is_used_through_every_reference(method: str, count: int, size: int) -> None:
    assert run(method, REACHED.format(count=count, size=size)) == "0 0 1 1 2 2 3 3 " * 7


@pytest.mark.better_than_standard("knows no data that is defined after the pool")
def test_newer_values_reach_forked_workers_likewise() -> None:
    program = """
        with Pool(1) as pool:
            exec("table = [lambda: value]\\ndef f(x): return table[0]()")
            for value in range(3):
                print(pool.map(f, [1])[0], end=' ')
    """
    assert run("fork", program) == "0 1 2 "


@pytest.mark.better_than_standard("knows no definitions that are typed in under spawn")
@pytest.mark.parametrize("method", METHODS)
def test_a_call_keeps_its_values_during_pickling(method: str) -> None:
    program = """
        import threading
        class Slow:
            def __reduce__(self):
                begun.set()
                assert go_on.wait(30)
                return int, (7,)
        begun, go_on = threading.Event(), threading.Event()
        def use(x): return new[0]
        def first(): print(pool.apply(lambda x: (new[0], x), (Slow(),)))
        with Pool(2) as pool:
            new = [0] * 60_000
            print(pool.apply(use, (1,)))
            thread = threading.Thread(target=first)
            thread.start()
            assert begun.wait(30)
            for number in range(1, 6):
                new = [number] * 60_000
                print(pool.apply(use, (1,)), end=' ')
            go_on.set()
            thread.join()
    """
    assert run(method, program) == "0\n1 2 3 4 5 (0, 7)\n"


@pytest.mark.better_than_standard("knows no definitions that are typed in under spawn")
@pytest.mark.parametrize("method", METHODS)
def test_data_of_some_size_reaches_processes_and_executors(method: str) -> None:
    program = f"""
        from concurrent.futures import ProcessPoolExecutor
        context = maniple.get_context({method!r})
        data = list(range(20_000))
        class K:
            def go(self): return len(data)
        def score(number): return len(data)
        def child(queue, answers): answers.put(queue.get().go())
        with ProcessPoolExecutor(1, mp_context=context) as executor:
            print(list(executor.map(score, range(2))))
        queue, answers = context.Queue(), context.Queue()
        process = context.Process(target=child, args=(queue, answers))
        process.start()
        queue.put(K())
        print(answers.get(timeout=30))
        process.join()
    """
    assert run(method, program) == "[20000, 20000]\n20000\n"


@pytest.mark.better_than_standard("knows no definitions that are typed in under spawn")
def test_without_space_the_call_contains_the_value() -> None:
    program = FILES + textwrap.dedent("""
        import errno
        data, write = list(range(100_000)), os.write
        def full(fd, block):
            if len(block) < 100_000: return write(fd, block)
            tried.append(fd)
            raise OSError(errno.ENOSPC, 'No space left on device')
        tried, os.write = [], full
        with Pool(1) as pool:
            print([pool.apply(lambda: sum(data)) for _ in range(3)], len(tried), files())
    """)
    assert run("spawn", program) == "[4999950000, 4999950000, 4999950000] 1 0\n"


@pytest.mark.better_than_standard("knows no data that is defined after the pool")
def test_a_scripts_data_under_the_guard(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    body = COUNTED.format(size=50_000) + "pool = maniple.get_context('spawn').Pool(1)\npickled.clear()\n"
    body += "print([pool.apply(lambda at: table.cells[at], (at,)) for at in range(4)], pickled)\npool.terminate()\n"
    program.write_text("import maniple\nif __name__ == '__main__':\n" + textwrap.indent(body, "    "))
    done = subprocess.run([sys.executable, str(program)], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("[0, 1, 2, 3] [50000]\n", "")


@pytest.mark.parametrize("method", ["fork", *METHODS])
def test_standard_streams_as_arguments_are_refused(method: str) -> None:
    program = """
        with Pool(1) as pool:
            for stream in (sys.stdin, sys.stdout, sys.stderr):
                try:
                    print(pool.apply(repr, (stream,)))
                except TypeError as error:
                    print(str(error).splitlines()[0])
            streams = sys.stdout
            print(pool.apply(lambda given=sys.stderr: (given is sys.stderr, streams is sys.stdout)))
    """
    refused = "cannot pickle '_io.TextIOWrapper' object\n" * 3
    assert run(method, program) == refused + "(True, True)\n"


SHARED = """
first = bytearray({size})
second, table = first, {{"a": first}}
class Kept: items = table
holder = {{"go": lambda: len(first), "pad": bytes({size})}}
def change(_):
    first[0] = 5
    return first is second, table["a"] is first, second[0], Kept.items is table
def look(_): return second[0], table["a"][0], holder["go"]() == {size}
with Pool(1) as pool:
    print(pool.map(look, [1]), pool.map(change, [1]), pool.map(look, [1]))
"""


@pytest.mark.better_than_standard("knows no definitions that are typed in under spawn")
@pytest.mark.parametrize("size", [10, 100_000])
@pytest.mark.parametrize("method", ["fork", *METHODS])
def test_one_object_under_several_names_stays_one(method: str, size: int) -> None:
    expected = "[(0, 0, True)] [(True, True, 5, True)] [(5, 5, True)]\n"
    assert run(method, SHARED.format(size=size)) == expected


@pytest.mark.better_than_standard("knows no data that is defined after the pool")
@pytest.mark.parametrize("method", ["fork", *METHODS])
def test_later_workers_use_the_newest_values(method: str) -> None:
    program = """
        import time
        pool = Pool(2, maxtasksperchild=3)
        pool.map(abs, range(2))
        value = 0
        def use(_):
            time.sleep(0.01)
            return value
        for value in range(1, 6):
            print(set(pool.map(use, range(6), chunksize=1)), end=' ')
        pool.terminate()
    """
    assert run(method, program) == "{1} {2} {3} {4} {5} "


@pytest.mark.better_than_standard("knows no definitions that are typed in under spawn")
@pytest.mark.parametrize("method", METHODS)
def test_a_deleted_name_stays_in_the_workers(method: str) -> None:
    program = """
        value = 5
        def use(): return value
        with Pool(1) as pool:
            del value
            print(pool.apply(use))
    """
    assert run(method, program) == "5\n"


@pytest.mark.better_than_standard("knows no definitions that are typed in under spawn")
@pytest.mark.parametrize("method", METHODS)
def test_threads_send_a_value_once(method: str) -> None:
    program = """
        import threading
        cache = {number: str(number) for number in range(50_000)}
        def one(): cache["n"] = cache.get("n", 0) + 1; return cache["n"]
        def two(): cache["n"] = cache.get("n", 0) + 1; return cache["n"]
        with Pool(1) as pool:
            out, barrier = [], threading.Barrier(3)
            def go(func):
                barrier.wait()
                out.append(pool.apply(func))
            threads = [threading.Thread(target=go, args=(func,)) for func in (one, two, one)]
            for thread in threads: thread.start()
            for thread in threads: thread.join()
            print(sorted(out), pool.apply(one))
    """
    assert run(method, program) == "[1, 2, 3] 4\n"


@pytest.mark.better_than_standard("knows no definitions that are typed in under spawn")
@pytest.mark.parametrize("method", METHODS)
def test_a_class_is_pickled_once_with_its_data(method: str) -> None:
    program = """
        class Table:
            def __init__(self): self.cells = list(range(50_000))
            def __getstate__(self):
                pickled.append(1)
                return self.__dict__
        class Model:
            table = Table()
            def predict(self, at): return self.table.cells[at]
        pickled = []
        with Pool(2) as pool:
            pool.apply(Model().predict, (0,))
            pickled.clear()
            print(pool.map(Model().predict, range(5), chunksize=1), [pool.apply(Model().predict, (at,)) for at in range(5)], pickled)
    """
    assert run(method, program) == "[0, 1, 2, 3, 4] [0, 1, 2, 3, 4] []\n"


@pytest.mark.better_than_standard("knows no definitions that are typed in under spawn")
@pytest.mark.parametrize("method", ["fork", *METHODS])
def test_a_dropped_pool_ends_though_a_list_of_the_program_had_its_results(method: str) -> None:
    program = """
        import gc, weakref
        offset = 1
        for number in range(3):
            pool = Pool(1)
            kept = [pool.imap(lambda n: n + offset, range(3))]
            globals()[f"new_{number}"] = number
            print(pool.apply(lambda n: n + offset, (number,)), end=' ')
            ended = weakref.ref(pool)
            kept, pool = [], None
            gc.collect()
            print(ended() is None, end=' ')
    """
    assert run(method, program) == "1 True 2 True 3 True "
