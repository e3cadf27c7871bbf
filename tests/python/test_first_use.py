"""First uses in many threads at once, or while a thread imports and another forks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from pools import METHODS

# Threads switch as often as possible, so that the others find each import incomplete.
TOGETHER = """
import importlib, sys, threading

def ready(number): return number * 2

def process(ctx):
    p = ctx.Process(target=ready, args=(1,)); p.start(); p.join()
    assert p.exitcode == 0, p.exitcode

def pool(ctx):
    with ctx.Pool(1) as workers: assert workers.map(ready, [1, 2]) == [2, 4]

def queue(ctx):
    for q in (ctx.Queue(2), ctx.JoinableQueue(), ctx.SimpleQueue()):
        q.put(1); assert q.get() == 1

def locks(ctx):
    with ctx.Lock(), ctx.RLock(), ctx.Condition(), ctx.Semaphore(): pass
    ctx.Event().set(); ctx.Barrier(1).wait(); ctx.BoundedSemaphore(2).acquire()

def memory(ctx):
    block = importlib.import_module(package + ".shared_memory").SharedMemory(create=True, size=9)
    block.close(); block.unlink()

def values(ctx):
    assert ctx.Value("i", 3).value == 3 and ctx.Array("i", 3)[2] == 0

def pipe(ctx):
    a, b = ctx.Pipe(); a.send([1]); assert b.recv() == [1]

def manager(ctx):
    with ctx.Manager() as m: assert m.dict(a=1)["a"] == 1

def tracker(ctx):
    importlib.import_module(package + ".resource_tracker").ensure_running()

def main():
    ctx = mp.get_context(method)
    jobs = [globals()[name] for name in names for _ in range(6 // len(names))]
    gate, errors = threading.Barrier(len(jobs)), []
    def go(job):
        gate.wait()
        try: job(ctx)
        except BaseException as error: errors.append(f"{job.__name__}: {error!r}")
    threads = [threading.Thread(target=go, args=(job,)) for job in jobs]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    sys.setswitchinterval(interval)
    print(errors or "fine", flush=True)

package, method, *names = sys.argv[1:]
if __name__ == "__main__":
    mp = importlib.import_module(package)
    main()
"""

FIRSTS = [
    ["process"],
    ["pool"],
    ["queue"],
    ["locks"],
    ["memory"],
    ["pipe"],
    ["manager"],
    ["process", "queue", "memory"],
    ["queue", "locks", "values", "pipe", "tracker", "process"],
]


def run(script: Path, program: str, *arguments: str) -> tuple[str, str]:
    script.write_text(program)
    done = subprocess.run([sys.executable, script, *arguments], capture_output=True, text=True, timeout=60)
    return done.stdout, done.stderr


@pytest.mark.parametrize("names", FIRSTS, ids="-".join)
@pytest.mark.parametrize("method", METHODS)
def test_many_threads_make_the_first_use_at_once(
    mp_package: str, tmp_path: Path, method: str, names: list[str]
) -> None:
    if mp_package == "multiprocessing" and method == "fork":
        pytest.skip("there, a fork in the middle of another thread's first use may leave the child with a taken lock")
    for _ in range(2):
        out, err = run(tmp_path / "program.py", TOGETHER, mp_package, method, *names)
        assert out == "fine\n", out + err


# A thread takes a second to import a module of the package; meanwhile it forks a process that imports it, too.
WHILE_IMPORTING = """
import importlib, importlib.machinery, sys, threading, time

package, wanted = sys.argv[1:]

class Slowly:
    def find_spec(self, name, path=None, target=None):
        if name != f"{package}.{wanted}": return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        self.loader, spec.loader = spec.loader, self
        return spec
    def create_module(self, spec): return None
    def exec_module(self, module):
        begun.set(); time.sleep(1); self.loader.exec_module(module)

def child():
    sys.meta_path.remove(slowly)
    importlib.import_module(f"{package}.{wanted}")

begun, slowly = threading.Event(), Slowly()
sys.meta_path.insert(0, slowly)
mp = importlib.import_module(package)
ctx = mp.get_context("fork")
first = ctx.Process(target=abs, args=(1,)); first.start(); first.join()
thread = threading.Thread(target=importlib.import_module, args=(f"{package}.{wanted}",))
thread.start(); begun.wait()
process = ctx.Process(target=child); process.start(); process.join(20)
print(process.exitcode)
process.kill(); thread.join()
"""


@pytest.mark.better_than_standard("the child waits for a thread that it does not have")
@pytest.mark.parametrize("wanted", ["queues", "heap", "managers"])
def test_a_forked_child_imports_a_module_that_its_parent_was_importing(
    mp_package: str, tmp_path: Path, wanted: str
) -> None:
    assert run(tmp_path / "program.py", WHILE_IMPORTING, mp_package, wanted) == ("0\n", "")


@pytest.mark.better_than_standard("the child waits for ever")
def test_a_child_imports_a_module_that_a_thread_was_importing(mp_package: str, tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text("import time\ntime.sleep(1)\nVALUE = 5\n")
    (tmp_path / "program.py").write_text(
        f"""
import sys, threading, time
import {mp_package} as mp

def child(queue):
    import slow
    queue.put(slow.VALUE)

if __name__ == "__main__":
    ctx = mp.get_context("fork")
    queue = ctx.Queue()
    thread = threading.Thread(target=__import__, args=("slow",))
    thread.start()
    while "slow" not in sys.modules:
        time.sleep(0.01)
    process = ctx.Process(target=child, args=(queue,), daemon=True)
    process.start()
    print(queue.get(timeout=30))
    process.join()
    thread.join()
"""
    )
    done = subprocess.run([sys.executable, "program.py"], capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert (done.stdout, done.stderr) == ("5\n", "")


POOL_AT_IMPORT = """
import importlib
ctx = importlib.import_module({package!r}).get_context("fork")

def double(number):
    return 2 * number

SEEN = []
for tasks in (None, 1):
    with ctx.Pool(2, maxtasksperchild=tasks) as pool:
        SEEN.append(pool.map_async(double, range(6), 1).get(20))
"""


@pytest.mark.better_than_standard("a worker that takes another's place waits for the import for ever")
@pytest.mark.parametrize("name", ["at_import", "package.at_import"])
def test_a_module_may_use_a_pool_during_its_own_import(mp_package: str, tmp_path: Path, name: str) -> None:
    path = tmp_path.joinpath(*name.split(".")).with_suffix(".py")
    path.parent.mkdir(exist_ok=True)
    path.with_name("__init__.py").touch()
    path.write_text(POOL_AT_IMPORT.format(package=mp_package))
    program = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\nimport {name} as module\nprint(*module.SEEN)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=80)
    assert done.stdout.split("\n")[0] == " ".join([str([0, 2, 4, 6, 8, 10])] * 2), done.stderr


# A program forks by itself during a thread's first use of an object, on a slow disk.
FORKED = """
import importlib, os, signal, sys, threading, time
mp = importlib.import_module(sys.argv[1])
ctx, first, wanted = mp.get_context("fork"), sys.argv[2], sys.argv[3]

class Slow:
    importing = threading.Event()
    def find_spec(self, name, path=None, target=None):
        if threading.current_thread().name == "first":
            Slow.importing.set()
            time.sleep(0.03)

def use(name):
    if name == "Pool":
        with ctx.Pool(1) as pool:
            assert pool.map(abs, [-1]) == [1]
    elif name == "Manager":
        ctx.Manager().shutdown()
    else:
        getattr(ctx, name)()

sys.meta_path.insert(0, Slow())
thread = threading.Thread(target=use, args=(first,), name="first")
thread.start()
for _ in range(4):
    Slow.importing.wait(5)
    time.sleep(0.02)
    pid = os.fork()
    if not pid:
        signal.alarm(10)
        use(wanted)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert code == 0, code
thread.join()
print("ok")
"""


@pytest.mark.better_than_standard("a child waits for a module that a thread of its parent was importing")
@pytest.mark.parametrize("first", ["Lock", "Queue", "Pool", "Manager"])
@pytest.mark.parametrize("wanted", ["Queue", "Pool"])
def test_a_programs_own_fork_during_a_first_use(mp_package: str, tmp_path: Path, first: str, wanted: str) -> None:
    program = tmp_path / "program.py"
    program.write_text(FORKED)
    done = subprocess.run(
        [sys.executable, str(program), mp_package, first, wanted], capture_output=True, text=True, timeout=60
    )
    assert (done.stdout, done.returncode) == ("ok\n", 0), done.stderr


# A thread stops inside the n-th import of native code, for each n in turn. A child that is forked then makes the same
# first use.
FORKED_INSIDE = """
import builtins, importlib, os, signal, sys, threading, time, warnings
warnings.simplefilter("ignore", DeprecationWarning)
mp = importlib.import_module(sys.argv[1])
ctx, what = mp.get_context("fork"), sys.argv[2]

class Plain:
    pass

def empty():
    q = ctx.Queue()
    try: q.get(timeout=0.01)
    except Exception as error: assert type(error).__name__ == "Empty", error

def message():
    a, b = ctx.Pipe()
    a.send([Plain(), len, 1 + 2j]); b.recv()
    a.send_bytes(b"12345678")
    try: b.recv_bytes_into(bytearray(2))
    except mp.BufferTooShort: pass

def put():
    q = ctx.SimpleQueue()
    q.put([Plain(), len]); q.get()

def pool():
    with ctx.Pool(1) as workers:
        assert workers.map(abs, [-1]) == [1]
        try: workers.apply(abs, ("",))
        except TypeError: pass

def listener():
    module = importlib.import_module(sys.argv[1] + ".connection")
    with module.Listener(authkey=b"right") as server:
        def serve():
            try: server.accept()
            except mp.AuthenticationError: pass
        other = threading.Thread(target=serve); other.start()
        try: module.Client(server.address, authkey=b"wrong")
        except mp.AuthenticationError: pass
        other.join()

def locks():
    lock = ctx.RLock()
    with lock, ctx.Condition(): pass
    try: lock.release()
    except AssertionError: pass

real, stopped, goes_on = builtins.__import__, threading.Event(), threading.Event()

def stopping(*args, **kwargs):
    global left
    # Native code passes a list, an import statement None or a tuple.
    if os.getpid() == home and threading.current_thread().name == "first" and len(args) > 3 and type(args[3]) is list:
        left -= 1
        if left == 0:
            stopped.set(); goes_on.wait()
    return real(*args, **kwargs)

def try_at(number):
    # 0: the child ended well. 1: there is no such import any more.
    global left, home
    left, home = number, os.getpid()
    builtins.__import__ = stopping
    thread = threading.Thread(target=globals()[what], name="first"); thread.start()
    while not stopped.wait(0.01):
        if not thread.is_alive(): return 1
    pid = os.fork()
    if not pid:
        builtins.__import__ = real
        signal.alarm(10)
        globals()[what]()
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    goes_on.set(); thread.join()
    return 2 + (code != 0)

number = 0
while True:
    number += 1
    pid = os.fork()
    if not pid:
        os._exit(try_at(number))
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code == 1: break
    assert code == 2, f"import {number}: {code}"
print("imports:", number - 1)
"""


@pytest.mark.better_than_standard("a child waits for a module that a thread of its parent was importing")
@pytest.mark.parametrize("what", ["empty", "message", "put", "pool", "listener", "locks"])
def test_a_child_forked_inside_a_first_use_waits_for_no_thread(mp_package: str, tmp_path: Path, what: str) -> None:
    out, err = run(tmp_path / "program.py", FORKED_INSIDE, mp_package, what)
    assert out.startswith("imports: "), out + err


WITHOUT_DESCRIPTORS = """
import importlib, os, resource, sys
ctx = importlib.import_module(sys.argv[1]).get_context(sys.argv[2])
arguments = {"Value": ("i",), "RawValue": ("i",), "Array": ("i", 3), "RawArray": ("i", 3), "Barrier": (2,), "Pool": (1,)}
make = getattr(ctx, sys.argv[3])
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
taken = []
try:
    while True:
        taken.append(os.open("/dev/null", os.O_RDONLY))
except OSError:
    pass
try:
    make(*arguments.get(sys.argv[3], ()))
except OSError as problem:
    said = str(problem)
for number in taken:
    os.close(number)
made = make(*arguments.get(sys.argv[3], ()))
for end in ("shutdown", "terminate"):
    getattr(made, end, int)()
print(said)
"""


@pytest.mark.better_than_standard("names a file of the package's")
@pytest.mark.parametrize(
    "name",
    "Pipe Queue JoinableQueue SimpleQueue Manager Pool Lock RLock Condition Semaphore BoundedSemaphore Event Barrier "
    "Value Array RawValue RawArray".split(),
)
def test_a_first_use_without_a_descriptor_raises_advice(mp_package: str, name: str) -> None:
    argv = [sys.executable, "-c", WITHOUT_DESCRIPTORS, mp_package, "fork", name]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
    assert "ulimit -n" in done.stdout and ".py" not in done.stdout, done.stdout + done.stderr


# A package with an imported part, and a part that is being imported when a child is forked.
PACKAGE = """
from .part import *
import time
time.sleep(1)
names = part.names
"""
PROGRAM_OF_PACKAGE = """
import importlib, sys, threading, time
mp = importlib.import_module(sys.argv[1])

def use(number):
    import half
    return half.names, half.part.names

ctx = mp.get_context("fork")
thread = threading.Thread(target=lambda: importlib.import_module("half"))
thread.start()
while "half.part" not in sys.modules or not hasattr(sys.modules["half.part"], "names"):
    time.sleep(0.001)
time.sleep(0.1)
with ctx.Pool(2) as pool:
    print(pool.map_async(use, [1, 2], 1).get(60))
thread.join()
"""


@pytest.mark.better_than_standard("a child waits for a module that a thread of its parent was importing")
def test_a_reimported_package_has_its_parts(mp_package: str, tmp_path: Path) -> None:
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "__init__.py").write_text(PACKAGE)
    (tmp_path / "half" / "part.py").write_text("names = ['a']\n")
    program = tmp_path / "program.py"
    program.write_text(PROGRAM_OF_PACKAGE)
    done = subprocess.run([sys.executable, str(program), mp_package], capture_output=True, text=True, timeout=80)
    assert done.stdout == "[(['a'], ['a']), (['a'], ['a'])]\n", done.stderr


# A thread imports a module of the package by one name; after its code has run, and before its import has ended, another
# thread imports it by the other name.
BY_BOTH_NAMES = """
import importlib, os, sys, threading, time
from importlib.util import find_spec
from maniple._impl.run import alias

name, code = sys.argv[1:]
begun, give_other_name = threading.Event(), alias._give_other_name

def register_and_wait(module):
    give_other_name(module)
    if module.__name__ == "maniple.shared_memory":
        begun.set()
        time.sleep(0.3)

alias._give_other_name = register_and_wait
first = threading.Thread(target=importlib.import_module, args=(name,))
first.start()
assert begun.wait(20)
exec(code)
first.join()
import multiprocessing.shared_memory as theirs, maniple.shared_memory as ours
assert theirs is ours and ours.__spec__.name == "maniple.shared_memory" and not ours.__spec__._initializing
print("fine")
"""

CODES = {
    "an attribute of the package": "import multiprocessing.shared_memory; multiprocessing.shared_memory.SharedMemory",
    "from the package": "from multiprocessing import shared_memory; shared_memory.SharedMemory",
    "from the module": "from multiprocessing.shared_memory import SharedMemory",
    "our attribute": "import maniple.shared_memory; maniple.shared_memory.SharedMemory",
    "in a forked child": """
if (pid := os.fork()) == 0:
    code = 1
    try:
        import multiprocessing.shared_memory, maniple.shared_memory
        assert multiprocessing.shared_memory is maniple.shared_memory
        assert find_spec("multiprocessing.shared_memory") and maniple.shared_memory.SharedMemory
        code = 0
    finally:
        os._exit(code)
assert os.waitpid(pid, 0)[1] == 0
""",
}


@pytest.mark.parametrize("name", ["maniple.shared_memory", "multiprocessing.shared_memory"])
@pytest.mark.parametrize("code", CODES.values(), ids=CODES)
def test_two_threads_import_a_module_by_both_names(tmp_path: Path, name: str, code: str) -> None:
    (tmp_path / "program.py").write_text(BY_BOTH_NAMES)
    command = [sys.executable, "-m", "maniple", tmp_path / "program.py", name, code]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert run.stdout == "fine\n", run.stderr
