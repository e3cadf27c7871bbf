"""Children that end before they are ready: the error contains their output, and the pool retries after a shortage."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

FRESH = pytest.mark.parametrize("method", ["spawn", "forkserver"])


def run(folder: Path, source: str, *, package: str, method: str, **environment: str) -> str:
    """Return a program's output; the program must succeed."""
    program = folder / "program.py"
    program.write_text(source.replace("PACKAGE", package))
    done = subprocess.run(
        [sys.executable, program, method],
        cwd=folder,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=80,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


# ---- the last words ----

LOST = """
import sys
import PACKAGE as mp
from PACKAGE.pool import WorkerLostError
{top}

def double(x):
    return 2 * x

if __name__ == "__main__":
    {setup}
    pool = mp.get_context(sys.argv[1]).Pool(2, {arguments})
    try:
        print(pool.map(double, range(3)))
    except WorkerLostError as error:
        print("carried" if {words!r} in error.stderr_tail and {words!r} in str(error) else str(error))
    pool.terminate()
    pool.join()
"""


@FRESH
@pytest.mark.parametrize("size", [10, 1_000_000])
@pytest.mark.better_than_standard("starts workers without end")
def test_the_error_says_why_the_main_module_cannot_be_imported(
    mp_package: str, method: str, tmp_path: Path, size: int
) -> None:
    source = LOST.format(
        top="if __name__ == '__mp_main__':\n    raise ValueError('the main module is unwell')",
        setup="",
        arguments=f"initializer=len, initargs=(bytes({size}),)",
        words="ValueError: the main module is unwell",
    )
    assert run(tmp_path, source, package=mp_package, method=method) == "carried\n"


@FRESH
@pytest.mark.better_than_standard("starts workers without end")
def test_the_error_says_why_the_initializer_cannot_be_imported(mp_package: str, method: str, tmp_path: Path) -> None:
    (tmp_path / "fickle.py").write_text(
        "import sys\nif 'PACKAGE.pool' not in sys.modules or sys.modules['__main__'].__name__ == '__mp_main__':\n"
        "    raise LookupError('no initializer today')\ndef begin(): pass\n".replace("PACKAGE", mp_package)
    )
    source = LOST.format(
        top="",
        setup="import fickle",
        arguments="initializer=fickle.begin",
        words="LookupError: no initializer today",
    )
    assert run(tmp_path, source, package=mp_package, method=method) == "carried\n"


@FRESH
@pytest.mark.better_than_standard("starts workers without end")
def test_the_error_says_which_module_is_missing(mp_package: str, method: str, tmp_path: Path) -> None:
    module = tmp_path / "passing.py"
    module.write_text("def begin(): pass\n")
    source = LOST.format(
        top="",
        setup="import passing, os; os.unlink('passing.py'); sys.path_importer_cache.clear()",
        arguments="initializer=passing.begin",
        words="No module named 'passing'",
    )
    environment = {"PYTHONDONTWRITEBYTECODE": "1"}
    assert run(tmp_path, source, package=mp_package, method=method, **environment) == "carried\n"


@pytest.mark.better_than_standard("starts workers without end")
def test_the_error_says_why_the_package_cannot_be_imported(mp_package: str, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import os, sys\nif '--multiprocessing-fork' in sys.orig_argv: sys.modules['PACKAGE'] = None\n".replace(
            "PACKAGE", mp_package
        )
    )
    source = LOST.format(top="", setup="", arguments="", words="ModuleNotFoundError: No module named")
    assert run(tmp_path, source, package=mp_package, method="spawn", PYTHONPATH=str(tmp_path)) == "carried\n"


@FRESH
def test_output_of_a_child_is_read_while_its_data_is_written(mp_package: str, method: str, tmp_path: Path) -> None:
    source = LOST.format(
        top="if __name__ == '__mp_main__':\n    sys.stderr.write('x' * 300_000)",
        setup="",
        arguments="initializer=len, initargs=(bytes(1_000_000),)",
        words="",
    )
    assert run(tmp_path, source, package=mp_package, method=method) == "[0, 2, 4]\n"


# ---- shortages ----

ATTEMPTS = """
import os
def attempts():
    with open("attempts", "ab") as file:
        file.write(b"!")
        return file.tell()
"""

SHORT = """
import sys
if __name__ == "__mp_main__":
    import unwell
import PACKAGE as mp

def double(x):
    return 2 * x

if __name__ == "__main__":
    with mp.get_context(sys.argv[1]).Pool(2) as pool:
        print(pool.map(double, range(3)))
        pool.close()
        pool.join()
"""

CAUSES = {
    "memory": "raise MemoryError",
    "descriptors": "raise OSError(24, 'Too many open files')",
    "the system's descriptors": "raise OSError(23, 'Too many open files in system')",
    "memory of the system": "raise OSError(12, 'Cannot allocate memory')",
    "processes": "os.fork = None\n    raise BlockingIOError(11, 'Resource temporarily unavailable')",
    "room": "raise OSError(28, 'No space left on device')",
    "an interrupted call": "raise InterruptedError(4, 'Interrupted system call')",
    "threads": """raise RuntimeError("can't start new thread")""",
    "a library's memory": "raise ImportError('x.so: failed to map segment from shared object: Cannot allocate memory')",
    "behind it": "try: raise MemoryError\n    except MemoryError as e: raise ImportError('x cannot be imported') from e",
    "limit on memory": "import resource; resource.setrlimit(resource.RLIMIT_AS, (1 << 20,) * 2); bytes(1 << 26)",
    "limit on descriptors": "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0)); os.pipe()",
}


@FRESH
@pytest.mark.parametrize("cause", CAUSES)
@pytest.mark.better_than_standard("starts workers without a pause")
def test_a_pool_restarts_a_worker_after_a_shortage_in_its_imports(
    mp_package: str, method: str, tmp_path: Path, cause: str
) -> None:
    (tmp_path / "unwell.py").write_text(f"{ATTEMPTS}\nif attempts() <= 5:\n    {CAUSES[cause]}\n")
    out = run(tmp_path, SHORT, package=mp_package, method=method)
    assert out == "[0, 2, 4]\n"
    assert (tmp_path / "attempts").stat().st_size >= 6


FINDER = """
import sys
if {mark!r} in " ".join(sys.orig_argv):
    class Finder:
        @staticmethod
        def find_spec(name, path=None, target=None):
            if name == {module!r} and attempts() <= {most}:
                {cause}
    sys.meta_path.insert(0, Finder)
"""


@pytest.mark.parametrize("module", ["", ".spawn", ".reduction", ".resource_tracker"])
@pytest.mark.parametrize("cause", ["memory", "descriptors", "a library's memory", "limit on memory"])
@pytest.mark.better_than_standard("starts workers without a pause")
def test_a_pool_restarts_a_worker_after_a_shortage_in_the_packages_import(
    mp_package: str, tmp_path: Path, cause: str, module: str
) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        ATTEMPTS + FINDER.format(mark="--multiprocessing-fork", module=mp_package + module, cause=CAUSES[cause], most=5)
    )
    source = SHORT.replace("    import unwell", "    pass")
    assert run(tmp_path, source, package=mp_package, method="spawn", PYTHONPATH=str(tmp_path)) == "[0, 2, 4]\n"


@pytest.mark.parametrize("module", ["", ".forkserver", "._impl.start.preload"])
@pytest.mark.parametrize("cause", ["memory", "descriptors"])
@pytest.mark.better_than_standard("starts workers without a pause")
def test_the_fork_server_restarts_after_a_shortage_in_its_imports(
    mp_package: str, tmp_path: Path, cause: str, module: str
) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        ATTEMPTS + FINDER.format(mark="import main", module=mp_package + module, cause=CAUSES[cause], most=6)
    )
    source = """
import sys, os
import PACKAGE as mp
from PACKAGE import forkserver

def double(x):
    return 2 * x

if __name__ == "__main__":
    os.environ["PYTHONPATH"] = ""
    with mp.get_context(sys.argv[1]).Pool(2) as pool:
        print(pool.map(double, range(3)))
        os.environ["PYTHONPATH"] = os.getcwd()
        os.kill(forkserver._forkserver._forkserver_pid, 9)
        for process in list(pool._pool):
            process.kill()
        print(pool.map(double, range(3)))
        pool.close()
        pool.join()
"""
    out = run(tmp_path, source, package=mp_package, method="forkserver")
    assert out == "[0, 2, 4]\n[0, 2, 4]\n"
    assert (tmp_path / "attempts").stat().st_size >= 7


def test_a_pool_restarts_an_interpreter_that_lacked_memory(mp_package: str, tmp_path: Path) -> None:
    interpreter = tmp_path / "python"
    interpreter.write_text(
        "#!/bin/sh\nprintf ! >> attempts\n"
        "if [ $(wc -c < attempts) -le 5 ]; then\n"
        "echo 'python: error while loading shared libraries: libc.so.6: failed to map segment from shared object' >&2\n"
        f'exit 127\nfi\nexec {sys.executable} "$@"\n'
    )
    interpreter.chmod(0o755)
    source = SHORT.replace("    import unwell", "    pass").replace(
        'if __name__ == "__main__":', f'if __name__ == "__main__":\n    mp.set_executable({str(interpreter)!r})'
    )
    assert run(tmp_path, source, package=mp_package, method="spawn") == "[0, 2, 4]\n"


@FRESH
@pytest.mark.better_than_standard("starts workers without end")
def test_calls_of_a_pool_with_a_lasting_shortage_fail_and_name_it(mp_package: str, method: str, tmp_path: Path) -> None:
    source = (
        LOST.format(
            top="if __name__ == '__mp_main__':\n    raise MemoryError('not today')",
            setup="",
            arguments="",
            words="",
        )
        .replace("PACKAGE", mp_package)
        .replace("'' in error.stderr_tail and '' in str(error)", "'MemoryError: not today' in str(error)")
    )
    assert run(tmp_path, source, package=mp_package, method=method) == "carried\n"


@FRESH
@pytest.mark.better_than_standard("has the exit code of any failure")
def test_an_exit_code_reports_a_shortage_before_the_process_begins(
    mp_package: str, method: str, tmp_path: Path
) -> None:
    source = """
import sys
import PACKAGE as mp
if __name__ == "__mp_main__":
    raise MemoryError

if __name__ == "__main__":
    process = mp.get_context(sys.argv[1]).Process(target=print)
    process.start()
    process.join()
    print(process.exitcode)
"""
    assert run(tmp_path, source, package=mp_package, method=method) == "75\n"


@pytest.mark.parametrize("cause", ["memory", "memory of the system", "descriptors", "a library's memory", "behind it"])
def test_the_next_task_repeats_an_import_that_a_shortage_failed(mp_package: str, tmp_path: Path, cause: str) -> None:
    (tmp_path / "far.py").write_text(
        "import os\ndef triple(x):\n    return 3 * x\n"
        f"if os.path.exists('child'):\n{ATTEMPTS.replace(chr(10), chr(10) + ' ')}\n if attempts() <= 1:\n    {CAUSES[cause]}\n"
    )
    source = """
import sys
import PACKAGE as mp

if __name__ == "__main__":
    import far
    with mp.get_context(sys.argv[1]).Pool(1) as pool:
        open("child", "w").close()
        try:
            pool.apply(far.triple, (1,))
        except Exception:
            pass
        else:
            print("not refused")
        print(pool.map(far.triple, [1, 2]))
        pool.close()
        pool.join()
"""
    assert run(tmp_path, source, package=mp_package, method="spawn") == "[3, 6]\n"


# The first listing of each folder is interrupted, in the processes that the program starts.
INTERRUPTED = """
import os, posix, sys
real, seen = posix.listdir, set()

def listdir(*folder):
    if folder not in seen:
        seen.add(folder)
        with open("interrupted", "ab") as file:
            file.write(b"!")
        raise InterruptedError(4, "Interrupted system call")
    return real(*folder)

if "-c" in sys.orig_argv:
    posix.listdir = listdir
    sys.path_importer_cache.clear()
"""

PLAIN = """
import sys
import other
import PACKAGE as mp

if __name__ == "__main__":
    ctx = mp.get_context(sys.argv[1])
    codes = []
    for _ in range(2):
        process = ctx.Process(target=other.add, args=(1, 2))
        process.start()
        process.join()
        codes.append(process.exitcode)
    print(codes)
"""


@FRESH
@pytest.mark.better_than_standard("its children end with exit code 1: the interpreter does not repeat that by itself")
def test_an_import_repeats_an_interrupted_listing(mp_package: str, method: str, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(INTERRUPTED)
    (tmp_path / "other.py").write_text("def add(a, b):\n    return a + b\n")
    out = run(tmp_path, PLAIN, package=mp_package, method=method, PYTHONPATH=str(tmp_path))
    assert out == "[0, 0]\n"
    assert (tmp_path / "interrupted").stat().st_size


# ---- a main module without a guard ----

UNGUARDED = {
    "the pool": "pool = mp.get_context(method).Pool(3)\nprint(pool.map(abs, range(3)))\n",
    "the start method": "mp.set_start_method(method)\nif __name__ == '__main__':\n    print(mp.Pool(3).map(abs, [1]))\n",
    "a wrapped error": (
        "try:\n    pool = mp.get_context(method).Pool(3)\nexcept RuntimeError as error:\n    raise LookupError from error\n"
        "print(pool.map(abs, [1]))\n"
    ),
}


@FRESH
@pytest.mark.parametrize("what", UNGUARDED)
@pytest.mark.better_than_standard("each worker prints an error, without end")
def test_a_main_module_without_a_guard_gets_one_error(mp_package: str, method: str, what: str, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(f"import {mp_package} as mp\nmethod = {method!r}\n{UNGUARDED[what]}")
    done = subprocess.run([sys.executable, program], cwd=tmp_path, capture_output=True, text=True, timeout=80)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("Traceback") == 1
    assert done.stderr.count('if __name__ == "__main__":') == 1
    assert "WorkerLostError: no worker process gets ready" in done.stderr
    assert len(done.stderr.splitlines()) < 25


@FRESH
def test_a_process_of_a_main_module_without_a_guard_prints_the_error(
    mp_package: str, method: str, tmp_path: Path
) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        f"import {mp_package} as mp\np = mp.get_context({method!r}).Process(target=abs, args=(1,))\np.start()\np.join()\n"
        "print(p.exitcode)\n"
    )
    done = subprocess.run([sys.executable, program], cwd=tmp_path, capture_output=True, text=True, timeout=80)
    assert done.stdout == "1\n"
    assert done.stderr.count("RuntimeError") == 1 and 'if __name__ == "__main__":' in done.stderr
