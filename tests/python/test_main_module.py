"""The main module's functions, classes and globals in workers, however the program was started."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zipapp
from collections.abc import Callable
from pathlib import Path

import pytest
from pools import METHODS

PROGRAMS = Path(__file__).resolve().parent / "programs"

TYPED_IN = """\
global of the initializer [41, 42] [43]
functions [3, 4] 3628800 [6]
classes there [True, True] [True]
classes here True True
exception 7 [8]
array [1, 3, 5]
lock True 10
starmap [3]
thread lock {}
open file refused
defined later [1, 2] [True]
defined anew [201] [201]
as the workers had it {{10}}
process True b 0
queue Odd True
dataclass True
class attribute [1, 2] [3, 4]
cached property [42]
kinds 5.976e+24 True -1 3 False True 5
registered once [('ran', True), ('ran', True)]
cached [3, 6] (3, True)
dispatched ['int', 'object'] int
copyreg 3
new workers [1, 2, 3]
end
"""


def run(*arguments: str | Path, **options: object) -> tuple[str, str]:
    """Return a program's output and errors; the program must succeed."""
    command = [sys.executable, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=85, **options)  # type: ignore[call-overload]
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout, done.stderr


@pytest.mark.better_than_standard("knows typed-in definitions under fork only, and no lambdas")
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", ["notebook", "ipython", "prompt", "c", "stdin"])
def test_typed_in_definitions(kind: str, method: str, mp_package: str) -> None:
    out, _ = run(PROGRAMS / "typed_in.py", kind, method, mp_package)
    lines = [re.sub(r"^(In \[\d+\]: )+", "", line) for line in out.splitlines()]
    said = "".join(f"{line}\n" for line in lines if line)
    # A lock of threads cannot go to a process that does not inherit it: the task that uses it gets an error with this
    # reason.
    assert said == TYPED_IN.format("locked" if method == "fork" else "True")


@pytest.mark.better_than_standard("cannot pickle lambdas, closures and local classes")
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("how", [[], ["-m", "cProfile", "-o", "/dev/null"]], ids=["script", "profiled"])
def test_a_scripts_definitions_keep_their_identity(how: list[str], method: str, mp_package: str) -> None:
    assert run(*how, PROGRAMS / "by_value.py", mp_package, method) == ("done\n", "")


INITIALIZED = """
import sys, {package} as mp
number = 0
def begin(value):
    global number
    number = value
def add(value):
    return number + value
if __name__ == "__main__":
    with mp.get_context(sys.argv[1]).Pool(2, begin, (40,)) as pool:
        print(pool.map(add, [1, 2]))
"""


@pytest.mark.better_than_standard("cannot pickle the functions of a program that a profiler runs")
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("launcher", ["cProfile -o /dev/null", "profile -o /dev/null", "pdb -c continue -c quit"])
def test_tasks_see_what_the_initializer_of_a_launched_program_has_set(
    tmp_path: Path, mp_package: str, method: str, launcher: str
) -> None:
    (tmp_path / "program.py").write_text(INITIALIZED.format(package=mp_package))
    out, _ = run("-m", *launcher.split(), tmp_path / "program.py", method, input="")
    assert "[41, 42]" in out


def _as_script(program: str, folder: Path) -> tuple[list[str], str | None]:
    (folder / "prog.py").write_text(program)
    return ["prog.py"], None


def _without_suffix(program: str, folder: Path) -> tuple[list[str], str | None]:
    (folder / "prog").write_text(program)
    return ["prog"], None


def _from_stdin(program: str, folder: Path) -> tuple[list[str], str | None]:
    return ["-"], program


def _as_text(program: str, folder: Path) -> tuple[list[str], str | None]:
    return ["-c", program], None


def _as_folder(program: str, folder: Path) -> tuple[list[str], str | None]:
    (folder / "app").mkdir()
    (folder / "app" / "__main__.py").write_text(program)
    return ["app"], None


def _as_archive(program: str, folder: Path) -> tuple[list[str], str | None]:
    arguments, _ = _as_folder(program, folder)
    zipapp.create_archive(folder / "app", folder / "app.pyz")
    return ["app.pyz"], None


def _as_package(program: str, folder: Path) -> tuple[list[str], str | None]:
    _as_folder(program, folder)
    (folder / "app" / "__init__.py").write_text("")
    return ["-m", "app"], None


def _as_module(program: str, folder: Path) -> tuple[list[str], str | None]:
    (folder / "pack").mkdir()
    (folder / "pack" / "__init__.py").write_text("")
    (folder / "pack" / "prog.py").write_text("from . import __name__ as above\n" + program)
    return ["-m", "pack.prog"], None


def _launched_by(run_it: str) -> Callable[[str, Path], tuple[list[str], str | None]]:
    def make(program: str, folder: Path) -> tuple[list[str], str | None]:
        (folder / "prog.py").write_text(program)
        launcher = f"import os, runpy, sys\n__import__(os.environ['PROGRAM_PACKAGE'])\nif __name__ == '__main__':\n    {run_it}\n"
        (folder / "launcher.py").write_text(launcher)
        return ["launcher.py"], None

    return make


def _removed(program: str, folder: Path) -> tuple[list[str], str | None]:
    (folder / "prog.py").write_text("import os\nif __name__ == '__main__':\n    os.unlink(__file__)\n" + program)
    return ["prog.py"], None


def _after_chdir(program: str, folder: Path) -> tuple[list[str], str | None]:
    (folder / "prog.py").write_text(program.replace("def main():\n", "def main():\n    os.chdir('/')\n"))
    return ["./prog.py"], None


def _debugged(program: str, folder: Path) -> tuple[list[str], str | None]:
    (folder / "prog.py").write_text(program)
    return ["-m", "pdb", "-c", "continue", "prog.py"], "quit\n"


KINDS_OF_START = {
    "script": _as_script,
    "script without suffix": _without_suffix,
    "standard input": _from_stdin,
    "text": _as_text,
    "folder": _as_folder,
    "archive": _as_archive,
    "package": _as_package,
    "module in a package": _as_module,
    "runpy.run_path": _launched_by("runpy.run_path('prog.py', run_name='__main__')"),
    "runpy.run_module": _launched_by("runpy.run_module('prog', run_name='__main__', alter_sys=True)"),
    "removed script": _removed,
    "other directory": _after_chdir,
    "debugger": _debugged,
}


@pytest.mark.better_than_standard("does not find these main modules again, and no lambdas")
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", KINDS_OF_START)
def test_a_child_finds_the_main_module(kind: str, method: str, mp_package: str, tmp_path: Path) -> None:
    program = (PROGRAMS / "main_program.py").read_text()
    arguments, text = KINDS_OF_START[kind](program, tmp_path)
    environment = {**os.environ, "PROGRAM_PACKAGE": mp_package, "PROGRAM_METHOD": method}
    out, err = run(*arguments, cwd=tmp_path, input=text, env=environment)
    wanted = "[2, 4] [True] 10 0\n"
    assert out == wanted or (kind == "debugger" and wanted in out)
    assert err == ""


PACKAGE_MAIN = """
import importlib.resources, os, sys
import {mp_package} as mp

def relative(number):
    from . import helper
    return helper.double(number)
def file(_): return os.path.basename(__file__)
def resource(_): return importlib.resources.files(__package__).joinpath("helper.py").is_file()
def by_import(_):
    import __main__
    return os.path.basename(__main__.__file__)
def nested(number):
    with mp.Pool(1) as pool:
        return pool.map(relative, [number])
__version__, __table = "1.2", {{"a": 1}}
def __helper(number): return number + 1
class __Private:
    def go(self): return 5
def dunders(number): return __version__, __table["a"], __helper(number), __Private().go()

if __name__ == "__main__":
    mp.set_start_method(sys.argv[1])
    with mp.Pool(1) as pool:
        for function in (relative, file, resource, by_import, nested, dunders):
            print(*pool.map(function, [3]))
"""


@pytest.mark.better_than_standard("does not load a package's __main__ in children")
@pytest.mark.parametrize("method", METHODS)
def test_the_main_module_of_a_package_has_its_path(method: str, mp_package: str, tmp_path: Path) -> None:
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "helper.py").write_text("def double(number): return 2 * number\n")
    (package / "__main__.py").write_text(PACKAGE_MAIN.format(mp_package=mp_package))
    expected = "6\n__main__.py\nTrue\n__main__.py\n[6]\n('1.2', 1, 4, 5)\n"
    assert run("-m", "package", method, cwd=tmp_path) == (expected, "")


@pytest.mark.better_than_standard("cannot load a main module from a pipe in children")
@pytest.mark.parametrize("method", METHODS)
def test_a_program_may_come_from_a_pipe(method: str, mp_package: str) -> None:
    program = f"import {mp_package} as mp\ndef double(n): return 2 * n\nif __name__ == '__main__':\n"
    program += f"    with mp.get_context('{method}').Pool(1) as pool: print(pool.map(double, [4]))"
    command = ["bash", "-c", '"$0" <(echo "$1")', sys.executable, program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("[8]\n", "")
