"""Runs a program in this interpreter as Python itself would, except that ``multiprocessing`` is this package.

The program gets a new ``__main__``, its ``sys.argv`` and its ``sys.path[0]``.  The traceback of an exception omits the frames of this
package.  The exception then propagates to Python, which sets the exit status, ends by SIGINT after a KeyboardInterrupt, or shows the
prompt of ``python -i``.
"""

from __future__ import annotations

import io
import linecache
import os
import pkgutil
import sys
import traceback
import warnings
from importlib.machinery import BuiltinImporter, ModuleSpec, SourceFileLoader, SourcelessFileLoader
from importlib.util import find_spec
from types import CodeType, ModuleType

from . import alias

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

__all__ = ["main"]

_USAGE = """\
usage: python -m maniple SCRIPT [ARGUMENT ...]
       python -m maniple -m MODULE [ARGUMENT ...]
       python -m maniple -c CODE [ARGUMENT ...]

Runs an unchanged Python program on maniple: when the program or one of its
libraries imports multiprocessing, it gets maniple, also in child processes.
SCRIPT is a file, a folder or zip file with a __main__.py, or - for the
standard input. Options of Python itself come before the first -m.
"""


def main() -> None:
    """Run the program that the command line names."""
    _, *arguments = sys.argv
    if not arguments:
        _misused("there is no program to run")
    what = arguments[0]
    if what in ("-h", "--help"):
        print(_USAGE, end="")
    elif what == "--version":
        from ..._maniple import __version__

        print(f"maniple {__version__} on Python {sys.version.split()[0]}")
    elif what in ("-m", "-c") and len(arguments) < 2:
        _misused(f"{what} needs a {'module' if what == '-m' else 'piece of code'} after it")
    elif what.startswith("-") and what not in ("-", "-m", "-c"):
        _misused(f"there is no option {what}")
    else:
        # Before the packages above a module are imported: they may import multiprocessing.
        alias.install()
        if what == "-m":
            _run_module(arguments[1], arguments[2:])
        elif what == "-c":
            _run_text(arguments[1], arguments[2:])
        elif what == "-":
            _run_input(arguments)
        else:
            _run_path(what, arguments)


def _misused(complaint: str) -> NoReturn:
    sys.stderr.write(f"maniple: {complaint}\n{_USAGE}")
    raise SystemExit(2)


def _give_up(complaint: str, status: int = 1) -> NoReturn:
    """Exit with Python's own message for a program that cannot be run."""
    sys.stderr.write(f"{sys.executable}: {complaint}\n")
    raise SystemExit(status)


# ---------------------------------------------------------------- the kinds of program


def _run_path(path: str, argv: list[str]) -> None:
    """Run a script, or a folder or zip file with a ``__main__.py``."""
    full = os.getcwd() if path == "." else os.path.join(os.getcwd(), path)  # not normalized, as in Python
    importer = pkgutil.get_importer(full)
    if importer is not None:  # a folder or an archive
        _replace_search_path(full, always=True)
        spec = importer.find_spec("__main__", None)
        if spec is None or spec.loader is None:
            _give_up(f"can't find '__main__' module in {full!r}")
        _run_spec(spec, argv)
        return
    loader: SourceFileLoader | SourcelessFileLoader = SourceFileLoader("__main__", full)
    if full.endswith(".pyc"):
        loader = SourcelessFileLoader("__main__", full)
    try:
        with io.open_code(full) as script:
            source = script.read()
    except OSError as problem:
        _give_up(f"can't open file {full!r}: [Errno {problem.errno}] {problem.strerror}", 2)
    _replace_search_path(os.path.dirname(os.path.realpath(full)))
    attributes = {"__file__": full, "__loader__": loader, "__cached__": None}
    if isinstance(loader, SourcelessFileLoader):
        try:
            compiled = loader.get_code("__main__")
        except (ImportError, EOFError, ValueError) as problem:
            _give_up(f"can't run {full!r}: {problem}")
        _execute(compiled, attributes, argv)
    else:
        _execute(source, attributes, argv, full)


def _run_module(name: str, arguments: list[str]) -> None:
    """Run a module, or a package's ``__main__``."""
    sys.argv = ["-m", *arguments]  # for the parent packages, which are imported first
    spec = _spec_of(name)
    if spec is not None and spec.submodule_search_locations is not None:
        if name == "__main__" or name.endswith(".__main__"):
            _give_up("Cannot use package as __main__ module")
        name += ".__main__"
        spec = _spec_of(name)
        if spec is None:
            package = name.removesuffix(".__main__")
            _give_up(f"No module named {name}; {package!r} is a package and cannot be directly executed")
    if spec is None or spec.loader is None:
        _give_up(f"No module named {name}")
    if name in sys.modules and "." in name:
        warnings.warn(
            f"{name!r} was imported by its parent package before it is run; it will exist twice", stacklevel=1
        )
    _run_spec(spec, [spec.origin or name, *arguments])


def _spec_of(name: str) -> ModuleSpec | None:
    try:
        return find_spec(name)
    except ModuleNotFoundError as missing:
        # Raise the error if a parent package's own import fails, not the import of a parent package.
        if missing.name is None or not f"{name}.".startswith(f"{missing.name}."):
            raise
        complaint = f"{type(missing).__name__}: {missing}"
    except (ValueError, AttributeError) as problem:
        complaint = f"{type(problem).__name__}: {problem}"
    _give_up(f"Error while finding module specification for {name!r} ({complaint})")


def _run_spec(spec: ModuleSpec, argv: list[str]) -> None:
    loader: Any = spec.loader
    get_code = getattr(loader, "get_code", None)
    if get_code is None:
        _give_up(f"No code object available for {spec.name}")
    try:
        code = get_code(spec.name)
    except Exception as problem:
        _show_and_raise(problem, problem.__traceback__, len(traceback.extract_tb(problem.__traceback__)))
    if code is None:
        _give_up(f"No code object available for {spec.name}")
    attributes = {
        "__file__": spec.origin,
        "__cached__": spec.cached,
        "__loader__": spec.loader,
        "__package__": spec.parent,
        "__spec__": spec,
    }
    _execute(code, attributes, argv)


def _run_text(text: str, arguments: list[str]) -> None:
    """Run the code of the command line."""
    if not sys.flags.safe_path:
        sys.path[0] = ""
    if sys.version_info >= (3, 13):  # tracebacks show the lines of the code
        linecache.cache["<string>"] = (len(text), None, text.splitlines(True), "<string>")
    _execute(text, {"__loader__": BuiltinImporter}, ["-c", *arguments], "<string>")


def _run_input(argv: list[str]) -> None:
    """Run the code of the standard input."""
    if not sys.flags.safe_path:
        sys.path[0] = ""
    attributes = {"__file__": "<stdin>", "__loader__": BuiltinImporter, "__cached__": None}
    _execute(sys.stdin.buffer.read(), attributes, argv, "<stdin>")


def _replace_search_path(folder: str, *, always: bool = False) -> None:
    """Replace the first entry of `sys.path`, where Python found this package, by ``folder``."""
    if not sys.flags.safe_path:
        sys.path[0] = folder
    elif always:
        sys.path.insert(0, folder)


# ---------------------------------------------------------------- running it


def _execute(
    program: CodeType | str | bytes | None, attributes: dict[str, Any], argv: list[str], name: str = ""
) -> None:
    """Run the program as ``__main__``."""
    main_module = ModuleType("__main__")
    content = vars(main_module)
    if sys.version_info >= (3, 15):
        attributes.pop("__cached__", None)
    content.update(attributes, __builtins__=sys.modules["builtins"])
    # Python's `__main__` is this package's; children must find the program's.
    sys.modules["__main__"] = sys.modules["__mp_main__"] = main_module
    sys.argv = argv
    try:
        code = program if isinstance(program, CodeType) else compile(program or "", name, "exec", dont_inherit=True)
        exec(code, content)
    except SystemExit:
        raise
    except BaseException as problem:
        _show_and_raise(problem, problem.__traceback__, 1)


def _show_and_raise(problem: BaseException, trace: Any, ours: int) -> NoReturn:
    """Show an exception without its first ``ours`` frames, and raise it, so that the interpreter exits without showing it again."""
    for _ in range(ours):
        trace = trace and trace.tb_next
    problem = problem.with_traceback(trace)
    try:
        sys.excepthook(type(problem), problem, trace)
    except SystemExit:
        raise
    except BaseException as failure:
        if failure.__context__ is problem:
            failure.__context__ = None  # set only because this code handles `problem`
        sys.stderr.write("Error in sys.excepthook:\n")
        traceback.print_exception(failure.with_traceback(failure.__traceback__ and failure.__traceback__.tb_next))
        sys.stderr.write("\nOriginal exception was:\n")
        sys.__excepthook__(type(problem), problem, trace)
    sys.excepthook = lambda kind, value, trace: None
    raise problem
