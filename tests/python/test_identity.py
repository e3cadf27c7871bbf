"""The names of classes, functions and modules under ``python -m maniple``, and the names in pickles."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAMS = Path(__file__).resolve().parent / "programs"
OURS, PLAIN = ("-m", "maniple"), ()
SUBMODULES = ("queues", "managers", "pool", "forkserver", "dummy", "shared_memory", "synchronize")


def run(*arguments: str | Path, stdin: str = "") -> str:
    """Return Python's output; it must succeed and print no warning."""
    line = [sys.executable, *map(str, arguments)]
    done = subprocess.run(line, input=stdin, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.parametrize("first", SUBMODULES)
def test_classes_and_functions_name_the_standard_package(first: str) -> None:
    """Whichever module is imported first."""
    plain = json.loads(run(PROGRAMS / "names.py", first))
    ours = json.loads(run(*OURS, PROGRAMS / "names.py", first))
    shared = plain.keys() & ours.keys()
    assert len(shared) > 200
    # A function of this package, which calls the function of subprocess.
    shared -= {"util:_args_from_interpreter_flags"}
    assert {key: ours[key] for key in shared} == {key: plain[key] for key in shared}
    # Objects that only this package has, or only newer versions, keep their own names: a plain interpreter finds them
    # nowhere else.
    newer = {"managers:SetProxy", "resource_tracker:cleanup_noop"} - plain.keys()
    assert not [key for key in ours.keys() - newer if ours[key].startswith("maniple") and ":_" not in key]


@pytest.mark.parametrize("writer, reader", [(OURS, PLAIN), (PLAIN, OURS), (OURS, OURS)], ids=["ours", "plain", "both"])
def test_the_other_package_reads_pickles(writer: tuple[str, ...], reader: tuple[str, ...]) -> None:
    writing = subprocess.Popen(
        [sys.executable, *writer, PROGRAMS / "pickles.py", "write"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with writing:
        assert writing.stdout is not None
        lines = list(iter(writing.stdout.readline, "\n"))
        reading = [sys.executable, *reader, str(PROGRAMS / "pickles.py"), "read"]
        read = subprocess.run(reading, input="".join(lines[::2]), capture_output=True, text=True, timeout=60)
        writing.communicate(timeout=60)
    assert read.returncode == 0, read.stderr
    assert len(lines) > 30 and read.stdout.splitlines(keepends=True) == lines[1::2]


def test_programs_and_tools_find_it_as_the_standard_package() -> None:
    """By threads at once, by `find_spec`, `pkgutil`, `inspect`, `runpy`, by patching and reloading."""
    ours, plain = ([sys.executable, *who, str(PROGRAMS / "looks.py")] for who in (OURS, PLAIN))
    for _ in range(5):  # the threads meet differently each time
        assert subprocess.check_output(ours, stderr=subprocess.DEVNULL, timeout=60) == subprocess.check_output(
            plain, stderr=subprocess.DEVNULL, timeout=60
        )


EARLY = """
import multiprocessing, multiprocessing.process, multiprocessing.spawn, sys
from multiprocessing import Process, Queue, cpu_count
from multiprocessing.context import TimeoutError

first = multiprocessing.process.BaseProcess._bootstrap


def _bootstrap(self, *args, **kwargs):
    print("begun", flush=True)
    return first(self, *args, **kwargs)


def replace():
    inner = multiprocessing.spawn.get_preparation_data

    def get_preparation_data(name):
        return inner(name) | {"replaced": True}

    multiprocessing.process.BaseProcess._bootstrap = _bootstrap
    multiprocessing.spawn.get_preparation_data = get_preparation_data
    multiprocessing._replaced = True


if not hasattr(multiprocessing, "_replaced"):
    replace()
"""


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_replaced_function_stays_replaced(tmp_path: Path, method: str) -> None:
    """As coverage does when it is started by a file of site-packages, before ``-m maniple`` is processed."""
    (tmp_path / "early.py").write_text(EARLY)
    (tmp_path / "sitecustomize.py").write_text("import early\n")
    (tmp_path / "program.py").write_text(
        "import early, multiprocessing, multiprocessing.process, multiprocessing.context\n"
        "def same(): return (early.Process is multiprocessing.Process, early.Queue == multiprocessing.Queue,"
        " early.cpu_count == multiprocessing.cpu_count, early.TimeoutError is multiprocessing.TimeoutError,"
        " early.multiprocessing is multiprocessing, multiprocessing._replaced,"
        " multiprocessing.process.BaseProcess._bootstrap is early._bootstrap)\n"
        "if __name__ == '__main__':\n"
        "    print(*same())\n"
        f"    context = multiprocessing.get_context({method!r})\n"
        "    print('replaced' in multiprocessing.spawn.get_preparation_data('name'))\n"
        "    with context.Pool(1) as pool: print(*pool.apply(same)); pool.close(); pool.join()\n"
        "    print(type(pool).map.__module__)\n"
    )
    outcomes = []
    for who in (PLAIN, OURS):
        line = [sys.executable, *who, str(tmp_path / "program.py")]
        environ = {**os.environ, "PYTHONPATH": str(tmp_path)}
        outcomes.append(subprocess.run(line, env=environ, capture_output=True, text=True, timeout=60))
    plain, ours = outcomes
    assert (ours.returncode, ours.stderr) == (0, "")
    assert ours.stdout == plain.stdout.replace("multiprocessing.pool", "maniple.pool")
    assert "begun" in ours.stdout


def test_a_plain_interpreter_unpickles_queues_and_pipes() -> None:
    """A library may start its children by itself, as loky does: they know only the standard package."""
    assert run(*OURS, PROGRAMS / "foreign_child.py") == "queue 42\npipe 44\n"


def test_a_programs_pool_class_is_not_the_packages() -> None:
    assert run(PROGRAMS / "own_queues.py") == run(*OURS, PROGRAMS / "own_queues.py") == "[1, 2, 3]\n"


def test_a_freezers_replacement_does_not_apply(tmp_path: Path) -> None:
    """It knows the standard package's command lines: our helpers would run the program, and start helpers in turn."""
    (tmp_path / "hook.py").write_text(
        "import multiprocessing, multiprocessing.spawn\n"
        "def freeze_support(): raise SystemExit('run by the hook')\n"
        "multiprocessing.freeze_support = multiprocessing.spawn.freeze_support = freeze_support\n"
    )
    program = (
        "import sys, hook; sys.frozen = True\n"
        "from maniple._impl.run import alias as _alias; _alias.install()\n"
        "import multiprocessing.spawn\n"
        "multiprocessing.freeze_support(); multiprocessing.spawn.freeze_support()\n"
        "print(multiprocessing.spawn.freeze_support is hook.freeze_support)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr, done.returncode) == ("False\n", "", 0)
