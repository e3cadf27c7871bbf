"""``python -m maniple``: an unchanged program runs as with plain Python, except that multiprocessing is maniple."""

from __future__ import annotations

import os
import py_compile
import signal
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from pools import METHODS

PROGRAMS = Path(__file__).resolve().parent / "programs"


def run(*arguments: str | Path, folder: Path, stdin: str = "", options: tuple[str, ...] = ()) -> tuple[int, str, str]:
    """Return Python's exit status, output and errors."""
    line = [sys.executable, *options, *map(str, arguments)]
    done = subprocess.run(line, cwd=folder, input=stdin, capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout, done.stderr


# -- the identity of multiprocessing


@pytest.mark.parametrize("method", METHODS)
def test_program_and_its_children_get_maniple(tmp_path: Path, method: str) -> None:
    code, out, err = run("-m", "maniple", PROGRAMS / "pools.py", method, folder=tmp_path)
    plain_code, plain_out, plain_err = run(PROGRAMS / "pools.py", method, folder=tmp_path)
    # The standard package's executor may leave a trace of its own; maniple leaves none.
    assert (code, err) == (plain_code, "") == (7, plain_err)
    assert "maniple" not in plain_out and "maniple" in out
    assert out.replace("maniple", "multiprocessing") == plain_out


@pytest.mark.parametrize("options", [("-I",), ("-O",), ("-X", "dev"), ("-W", "error")], ids=" ".join)
def test_options_of_python_reach_the_children(tmp_path: Path, options: tuple[str, ...]) -> None:
    (tmp_path / "flags.py").write_text(
        "import multiprocessing, sys\n"
        "def show(): print(multiprocessing.__name__, sys.flags[:-1], sys.warnoptions, sys._xoptions, flush=True)\n"
        "if __name__ == '__main__':\n"
        "    show()\n"
        "    process = multiprocessing.get_context('spawn').Process(target=show)\n"
        "    process.start(); process.join(); sys.exit(process.exitcode)\n"
    )
    code, out, err = run("-m", "maniple", "flags.py", folder=tmp_path, options=options)
    assert (code, err) == (0, "")
    mine, childs = out.splitlines()
    assert mine == childs and mine.startswith("maniple ")


def test_modules_imported_earlier_are_replaced(tmp_path: Path) -> None:
    early = "import multiprocessing.pool, concurrent.futures; concurrent.futures.ProcessPoolExecutor\n"
    (tmp_path / "sitecustomize.py").write_text(early)
    text = (
        "import concurrent.futures.process as p, multiprocessing as m, concurrent.futures;"
        "print(p.mp.__name__, __import__('multiprocessing.pool').pool.__name__, concurrent.futures.ProcessPoolExecutor is p.ProcessPoolExecutor)"
    )
    line = [sys.executable, "-m", "maniple", "-c", text]
    environ = {**os.environ, "PYTHONPATH": str(tmp_path)}
    assert subprocess.check_output(line, env=environ, text=True) == "maniple maniple.pool True\n"


def test_a_missing_module_is_not_found(tmp_path: Path) -> None:
    text = "import multiprocessing.nothing"
    code, _, err = run("-m", "maniple", "-c", text, folder=tmp_path)
    assert code == 1 and err.endswith("ModuleNotFoundError: No module named 'multiprocessing.nothing'\n")


def test_packages_own_name_leads_to_the_same_objects(tmp_path: Path) -> None:
    text = (
        "import maniple.queues, multiprocessing.queues, importlib.util as u;"
        "print(maniple.queues.Queue is multiprocessing.queues.Queue, maniple.queues.__spec__.name,"
        "u.find_spec('multiprocessing.pool').name)"
    )
    assert run("-m", "maniple", "-c", text, folder=tmp_path) == (0, "True maniple.queues multiprocessing.pool\n", "")


# -- as with plain Python

LOOK = """
import sys
shown = {name: value for name, value in globals().items() if name not in ("sys", "__spec__", "__loader__", "__annotations__")}
print(sys.argv, sys.path[0], sorted(shown.items()), sys.modules["__main__"].__dict__ is globals())
print(type(__loader__), __spec__ and (__spec__.name, __spec__.origin))
"""
FAIL = """
import sys
def inner(): raise ValueError("deep")
try:
    inner()
except ValueError as first:
    raise KeyError("outer") from first
"""
ENDINGS = {
    "status": "raise SystemExit(3)",
    "text": "raise SystemExit('a last word')",
    "nothing": "import sys; sys.exit()",
    "error": FAIL,
    "interrupt": "raise KeyboardInterrupt",
    "syntax": "x = 1\nif x\n    pass\n",
    "indentation": "x = 1\n  y = 2\n",
    "encoding": "# coding: latin-1\nprint('\xe4')\n1/0",
    "future": "def f(x: nonsense): pass\n",
    "hook": "import sys\nsys.excepthook = lambda *told: print(told[0], told[2].tb_frame.f_code.co_name)\n1/0",
    "bad hook": "import sys\ndef hook(*told): raise RuntimeError('hook')\nsys.excepthook = hook\n1/0",
    "leaving hook": "import sys\nsys.excepthook = lambda *told: sys.exit(5)\n1/0",
    "group": "raise ExceptionGroup('several', [ValueError(1), TypeError(2)])",
    "atexit": "import atexit\natexit.register(print, 'late')\n1/0",
    "thread": (
        "import threading, time, sys\n"
        "def later(): threading.main_thread().join(); print(sys.modules['__main__'].word)\n"
        "word = 'kept'\nthreading.Thread(target=later).start()\n1/0"
    ),
}


def assert_same(folder: Path, *arguments: str | Path, stdin: str = "", options: tuple[str, ...] = ()) -> None:
    plain = run(*arguments, folder=folder, stdin=stdin, options=options)
    ours = run("-m", "maniple", *arguments, folder=folder, stdin=stdin, options=options)
    assert ours == plain


Layout = Callable[[Path], tuple["str | Path", ...]]


def as_file(folder: Path) -> tuple[str | Path, ...]:
    (folder / "deep").mkdir()
    (folder / "deep" / "look.py").write_text(LOOK)
    return ("deep/look.py",)


def as_dotted_path(folder: Path) -> tuple[str | Path, ...]:
    as_file(folder)
    return ("./deep/../deep/look.py",)


def as_link(folder: Path) -> tuple[str | Path, ...]:
    as_file(folder)
    (folder / "link.py").symlink_to("deep/look.py")
    return ("link.py",)


def as_folder(folder: Path) -> tuple[str | Path, ...]:
    (folder / "app").mkdir()
    (folder / "app" / "__main__.py").write_text(LOOK)
    return ("app",)


def as_archive(folder: Path) -> tuple[str | Path, ...]:
    with zipfile.ZipFile(folder / "app.zip", "w") as archive:
        archive.writestr("__main__.py", LOOK)
    return ("app.zip",)


def as_compiled(folder: Path) -> tuple[str | Path, ...]:
    as_file(folder)
    py_compile.compile(str(folder / "deep" / "look.py"), str(folder / "look.pyc"))
    return ("look.pyc",)


def as_module(folder: Path) -> tuple[str | Path, ...]:
    (folder / "look.py").write_text(LOOK)
    return "-m", "look"


def as_package(folder: Path) -> tuple[str | Path, ...]:
    as_folder(folder)
    (folder / "app" / "__init__.py").write_text("import sys; print('package', sys.argv)")
    return "-m", "app"


def as_submodule(folder: Path) -> tuple[str | Path, ...]:
    as_file(folder)
    return "-m", "deep.look"


def as_text(folder: Path) -> tuple[str | Path, ...]:
    return "-c", LOOK


LAYOUTS = [
    as_file,
    as_dotted_path,
    as_link,
    as_folder,
    as_archive,
    as_compiled,
    as_module,
    as_package,
    as_submodule,
    as_text,
]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_program_sees_itself_as_with_python(tmp_path: Path, layout: Layout) -> None:
    assert_same(tmp_path, *layout(tmp_path), "one", "--two", "-m")


@pytest.mark.parametrize("layout", [as_file, as_folder, as_text])
def test_safe_path(tmp_path: Path, layout: Layout) -> None:
    assert_same(tmp_path, *layout(tmp_path), options=("-P",))


def test_program_on_standard_input(tmp_path: Path) -> None:
    assert_same(tmp_path, "-", "one", stdin=LOOK)


@pytest.mark.parametrize("ending", ENDINGS.values(), ids=ENDINGS)
def test_program_ends_as_with_python(tmp_path: Path, ending: str) -> None:
    (tmp_path / "program.py").write_text(ending, encoding="latin-1")
    assert_same(tmp_path, "program.py")


@pytest.mark.parametrize("name", ["status", "error", "interrupt", "hook"])
def test_module_ends_as_with_python(tmp_path: Path, name: str) -> None:
    (tmp_path / "program.py").write_text(ENDINGS[name])
    code, out, err = run("-m", "program", folder=tmp_path)
    ours = run("-m", "maniple", "-m", "program", folder=tmp_path)
    # Python's own -m shows the frames of its runpy.
    lines = [line for line in err.splitlines(keepends=True) if "<frozen runpy>" not in line]
    assert (ours[0], ours[2]) == (code, "".join(lines))
    assert ours[1] == out.replace("_run_module_as_main", "<module>")


@pytest.mark.parametrize("name", ["status", "error", "interrupt", "syntax"])
def test_code_on_the_command_line_ends_as_with_python(tmp_path: Path, name: str) -> None:
    assert_same(tmp_path, "-c", ENDINGS[name])


def test_sigint_ends_the_program_by_the_signal(tmp_path: Path) -> None:
    code, _, err = run("-m", "maniple", "-c", "import os; os.kill(os.getpid(), 2)", folder=tmp_path)
    assert code == -signal.SIGINT and err.count("KeyboardInterrupt") == 1


def test_a_failed_child_prints_pythons_output(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(
        "import multiprocessing, sys\n"
        "def fail(): raise LookupError('in the child')\n"
        "if __name__ == '__main__':\n"
        "    process = multiprocessing.get_context('spawn').Process(target=fail)\n"
        "    process.start(); process.join(); sys.exit(process.exitcode + 10)\n"
    )
    code, _, err = run("-m", "maniple", "program.py", folder=tmp_path)
    assert code == 11 and 'program.py", line 2, in fail' in err and "LookupError: in the child" in err


# -- programs that cannot run


@pytest.mark.parametrize(
    "arguments",
    [
        ("nowhere.py",),
        ("deep/nowhere.py",),
        (".",),
        ("-m", "nowhere"),
        ("-m", "nowhere.deeper"),
        ("-m", "json.nowhere"),
        ("-m", "xml"),
        ("-m", "sys"),
    ],
    ids=" ".join,
)
def test_an_unrunnable_program_gets_pythons_error(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    assert_same(tmp_path, *arguments)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ((), "there is no program to run"),
        (("-m",), "-m needs a module after it"),
        (("-c",), "-c needs a piece of code after it"),
        (("-z", "x.py"), "there is no option -z"),
    ],
    ids=str,
)
def test_wrong_use_is_explained(tmp_path: Path, arguments: tuple[str, ...], complaint: str) -> None:
    code, out, err = run("-m", "maniple", *arguments, folder=tmp_path)
    assert (code, out) == (2, "")
    assert err.startswith(f"maniple: {complaint}\nusage: python -m maniple SCRIPT")


def test_help_and_version(tmp_path: Path) -> None:
    code, out, err = run("-m", "maniple", "--help", folder=tmp_path)
    assert (code, err) == (0, "") and out.startswith("usage: python -m maniple SCRIPT")
    code, out, err = run("-m", "maniple", "--version", folder=tmp_path)
    assert (code, err) == (0, "") and out.startswith("maniple ")
