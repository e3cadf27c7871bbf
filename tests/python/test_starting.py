"""The start of children as fresh interpreters, and of helpers: options, directories, interpreter."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAMS = Path(__file__).resolve().parent / "programs"
METHODS = ("spawn", "forkserver")


def run(*arguments: str | Path, folder: Path | None = None, **environ: str) -> str:
    """Return Python's output; it must succeed and print no warning."""
    line = [sys.executable, *map(str, arguments)]
    done = subprocess.run(
        line,
        cwd=folder,
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=60,
        stdin=subprocess.DEVNULL,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


# -- options

OPTIONS = [
    "-X int_max_str_digits=9999 -X no_debug_ranges -W error::UserWarning -O -B",
    "-OO -X dev -X warn_default_encoding -X pycache_prefix=/tmp/nowhere",
    "-b -W ignore -X tracemalloc=3 -X faulthandler -X utf8=0 -X cpu_count=3",
    "-I -X frozen_modules=off -X own -X own2=a=b -u",
    "-E -s -P -q --check-hash-based-pycs never",
    "-Xno_debug_ranges -Werror -bb -X utf8",
]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("options", OPTIONS)
def test_options_of_python_reach_every_process_once(options: str, method: str) -> None:
    out = run(*options.split(), "-m", "maniple", PROGRAMS / "options.py", method)
    here, there, *helpers = out.splitlines()
    assert here == there
    assert len(helpers) == (1 if method == "spawn" else 2)
    for helper in helpers:
        named = re.sub(r"'-X', '", "'-X", helper)
        given = [word.partition("=")[0] for word in ast.literal_eval(named)]
        assert len(given) == len(set(given)), helper


@pytest.mark.parametrize("method", METHODS)
def test_no_object_compares_bytes_with_str(mp_package: str, method: str) -> None:
    program = PROGRAMS / "bytes_and_str.py"
    done = subprocess.run(
        [sys.executable, "-bb", str(program), mp_package, method], capture_output=True, text=True, timeout=60
    )
    assert (done.stdout, done.stderr, done.returncode) == ("ok\n", "", 0)


# -- directories


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("state", ["removed", "removed before", "locked", "locked before"])
def test_child_is_in_the_directory_of_its_parent(tmp_path: Path, method: str, state: str) -> None:
    """Also if the directory has no name any more or cannot be entered again; `before`: even before the fork server
    starts."""
    away = tmp_path / "away"
    away.mkdir()
    assert run(PROGRAMS / "directories.py", method, *state.split(), folder=away) == "True\n" * 4


@pytest.mark.parametrize("method", METHODS)
def test_a_child_has_the_search_path_of_its_parent(tmp_path: Path, method: str) -> None:
    """Also with '' and relative entries, which refer to the program's directory; otherwise no module comes from
    there."""
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "beside.py").write_text("def where(): return __file__\n")
    for shadow in ("socket", "pickle", "select", "signal"):
        (tmp_path / f"{shadow}.py").write_text("raise ImportError('a file of the program stands in for a module')\n")
    text = (
        "import sys; del sys.path[0]; sys.path += ['lib', '']\n"
        "import maniple, beside\n"
        f"context = maniple.get_context({method!r})\n"
        "with context.Pool(1) as pool: print(pool.apply(beside.where))\n"
    )
    text = "if __name__ == '__main__':\n " + text.replace("\n", "\n ")
    program = tmp_path / "elsewhere" / "program.py"
    program.parent.mkdir()
    program.write_text(text)
    assert Path(run(program, folder=tmp_path).strip()).name == "beside.py"


# -- the interpreter


@pytest.mark.parametrize("method", METHODS)
def test_interpreter_named_by_a_relative_path(tmp_path: Path, method: str) -> None:
    """Relative to the directory in which the program began: it may have changed since."""
    (tmp_path / "python").symlink_to(sys.executable)
    program = tmp_path / "program.py"
    program.write_text(
        "import os, sys, maniple\n"
        "if __name__ == '__main__':\n"
        "    maniple.set_executable('./python')\n"
        "    os.chdir('/')\n"
        f"    process = maniple.get_context({method!r}).Process(target=print, args=('there',))\n"
        "    process.start(); process.join()\n"
    )
    environ = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    assert run(program, folder=tmp_path, **environ) == "there\n"


@pytest.mark.parametrize("executable", ["None", "''"])
def test_an_unknown_interpreter_raises_an_error(executable: str) -> None:
    text = (
        "import sys; found = sys.executable\n"
        f"sys.executable = {executable}\n"
        "import maniple\n"
        "process = maniple.get_context('fork').Process(target=print, args=('forked',), kwargs={'flush': True})\n"
        "process.start(); process.join()\n"
        "process = maniple.get_context('spawn').Process(target=print, args=('spawned',))\n"
        "try: process.start()\n"
        "except ValueError as error: print(error, flush=True)\n"
        "maniple.set_executable(found)\n"
        "process = maniple.get_context('spawn').Process(target=print, args=('spawned',))\n"
        "process.start(); process.join()\n"
    )
    forked, error, spawned = run("-c", text).splitlines()
    assert (forked, spawned) == ("forked", "spawned") and "set_executable" in error


# -- the imports of a fork server


@pytest.mark.parametrize("what", ["nothing", "thread", "fork", "lock", "signals"])
def test_the_fork_server_does_not_use_functions_that_its_main_module_replaced(what: str) -> None:
    """Only the children import a main module that starts threads, or replaces functions that the server relies on."""
    importer = "the server" if what == "nothing" else "the child"
    assert run(PROGRAMS / "preloaded.py", what) == f"{importer} 1 True True\n0\n"


def test_the_fork_server_keeps_its_other_modules(tmp_path: Path) -> None:
    """The server omits only preloaded modules that replace system functions; modules may start threads."""
    (tmp_path / "patches.py").write_text("import os, select; select.poll = None; by = os.getpid()\n")
    (tmp_path / "threads.py").write_text(
        "import os, threading, time; by = os.getpid(); threading.Thread(target=time.sleep, args=(600,), daemon=True).start()\n"
    )
    (tmp_path / "plain.py").write_text("import os; by = os.getpid()\n")
    (tmp_path / "program.py").write_text(
        "import maniple, os, sys\n"
        "def show(): print([sys.modules[name].by == os.getppid() if name in sys.modules else None"
        " for name in ('patches', 'threads', 'plain')])\n"
        "if __name__ == '__main__':\n"
        "    maniple.set_forkserver_preload(['threads', 'patches', 'plain'])\n"
        "    process = maniple.get_context('forkserver').Process(target=show)\n"
        "    process.start(); process.join(); sys.exit(process.exitcode)\n"
    )
    out = run("-W", "ignore", tmp_path / "program.py")
    assert out == "[None, True, True]\n"


def test_the_main_module_is_preloaded_as_by_the_running_python(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "import os, sys, time\n"
        "multiprocessing = __import__(sys.argv[1])\n"
        "importer = os.getpid()\n"
        "def show(): print(importer == os.getppid(), importer == os.getpid())\n"
        "if __name__ == '__main__':\n"
        "    process = multiprocessing.get_context('forkserver').Process(target=show)\n"
        "    process.start(); process.join(); sys.exit(process.exitcode)\n"
    )
    assert run(program, "maniple") == run(program, "multiprocessing")


# -- a start within a start


@pytest.mark.parametrize("method", METHODS)
def test_pickling_an_argument_may_start_a_process(method: str) -> None:
    assert run(PROGRAMS / "starts_while_pickled.py", method) == "0 inner inner ended with 0\n"


# -- a fork server that ends while it starts


def test_the_fork_servers_end_during_its_start_is_no_shortage(tmp_path: Path) -> None:
    (tmp_path / "ends_the_server.py").write_text("import os\nos._exit(3)\n")
    said = run(PROGRAMS / "server_that_ends.py", folder=tmp_path, PYTHONPATH=str(tmp_path)).splitlines()
    assert len(said) == 2
    for line in said:
        assert line.startswith("EOFError: ")
        assert "Forkserver process may have crashed or exited early" in line
