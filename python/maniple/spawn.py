"""The start of a fresh interpreter: its command line in the parent, and its first steps in the child.

The parent describes itself in *preparation data* (a dict).  The child applies the
data, loads the program's main module under the name ``__mp_main__``, unpickles the
process object and runs it.
"""

from __future__ import annotations

import atexit
import io
import os
import sys
import types
from _pickle import loads
from contextlib import suppress

from . import process, util
from ._impl.compat import public_module
from ._impl.start.descriptors import EX_TEMPFAIL, close_number, duplicate, flush_without_fail
from ._impl.start.steady_imports import SteadyFinder
from .context import _default_context, reduction
from .reduction import load

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

get_start_method = _default_context.get_start_method
set_start_method = _default_context.set_start_method

__all__ = [
    "_main",
    "freeze_support",
    "set_executable",
    "get_executable",
    "get_preparation_data",
    "get_command_line",
    "import_main_path",
]

# ---------------------------------------------------------------- which interpreter

if sys.platform != "win32":
    WINEXE = WINSERVICE = False
else:
    WINEXE = getattr(sys, "frozen", False)
    WINSERVICE = bool(sys.executable) and sys.executable.lower().endswith("pythonservice.exe")

_python_exe: str | bytes | None = None


def set_executable(exe: str | bytes | os.PathLike[str] | None) -> None:
    """Set the Python interpreter that children run. None means that it is unknown, and no child can be started."""
    global _python_exe
    coded = os.fsdecode if sys.platform == "win32" else os.fsencode
    _python_exe = None if exe is None else coded(exe)


def get_executable() -> Any:
    """Return the Python interpreter that children run: bytes (on Windows, a str), or None."""
    return _python_exe


def _interpreter() -> str | bytes:
    """Return the interpreter that children run; a relative path is resolved against `process.ORIGINAL_DIR`.

    Raises:
        ValueError: no interpreter is set.
    """
    exe: str | bytes | None = get_executable()
    if not exe:
        raise ValueError("the interpreter of this program is unknown: call set_executable() with its path")
    start = process.ORIGINAL_DIR
    if start is not None and not os.path.isabs(exe) and not os.path.exists(exe):
        anchored = os.path.join(os.fsencode(start), os.fsencode(exe))
        if os.path.exists(anchored):
            return anchored
    return exe


set_executable(os.path.join(sys.exec_prefix, "python.exe") if WINSERVICE else sys.executable)

# ---------------------------------------------------------------- command line

_MARK = "--multiprocessing-fork"
# The mark of a helper process of a frozen program.
_HELPER_MARK = "--multiprocessing-helper"
_HELPERS = ("forkserver", "resource_tracker")


def is_forking(argv: list[str]) -> bool:
    """Return True if `argv` is the command line of a child."""
    return argv[1:2] == [_MARK]


def freeze_support() -> None:
    """Run the part of a child or helper process, and exit, if this frozen program was started as a child or helper."""
    _be_what_was_started()


def _be_what_was_started() -> None:
    if is_forking(sys.argv):
        spawn_main(**_numbers(sys.argv[2:]))
        sys.exit()
    if sys.argv[1:2] == [_HELPER_MARK] and sys.argv[2:3] and sys.argv[2] in _HELPERS:
        from importlib import import_module

        vars(import_module(f".{sys.argv[2]}", __package__))["main"](**_numbers(sys.argv[3:]))
        sys.exit()


def _numbers(words: list[str]) -> dict[str, Any]:
    pairs = (word.split("=", 1) for word in words)
    return {name: None if value == "None" else int(value) for name, value in pairs}


def _take_over_if_frozen() -> None:
    """Do the work of `freeze_support` in a frozen program that does not call it; called when a process is about to be started.

    Otherwise each child and helper would run the main module again, and start processes without end.
    """
    if not getattr(sys, "frozen", False):
        return
    try:
        _be_what_was_started()  # not `freeze_support`, which the program may have replaced
    except SystemExit as end:
        # The program's own code must not receive this exception.
        code = end.code
        atexit._run_exitfuncs()
        util._flush_std_streams()
        os._exit(code if isinstance(code, int) else 0 if code is None else 1)


def get_command_line(**kwds: Any) -> list[str | bytes]:
    """Return the command line of a child whose `spawn_main` receives these arguments."""
    if getattr(sys, "frozen", False):
        return [sys.executable, _MARK, *(f"{name}={value!r}" for name, value in kwds.items())]
    call = ", ".join(f"{name}={value!r}" for name, value in kwds.items())
    from ._impl.start.launch import importing

    program = importing("spawn", "spawn_main") + f"spawn_main({call})"
    return [_interpreter(), *util._args_from_interpreter_flags(), "-c", program, _MARK]


# ---------------------------------------------------------------- in the child


def spawn_main(pipe_handle: int, parent_pid: int | None = None, tracker_fd: int | None = None) -> None:
    """Run the part of a child that was started with `get_command_line`, and exit."""
    if not is_forking(sys.argv):
        raise AssertionError("Not forking: this is meant for children that the package starts")
    fd: Any
    if sys.platform == "win32":
        if parent_pid is None:
            from ._maniple import claim_handle, content_of_memory

            memory = claim_handle(pipe_handle)
            fd, sentinel = io.BufferedReader(io.BytesIO(content_of_memory(memory))), None  # type: ignore[arg-type]
            close_number(memory)
        else:
            fd, sentinel = _take_over_windows(pipe_handle, parent_pid)
    else:
        try:
            from .resource_tracker import _resource_tracker as tracker

            tracker._fd = tracker_fd
            # Both were inherited through exec. Processes that this child starts must not inherit them.
            for inherited in (pipe_handle, tracker_fd):
                if inherited is not None:
                    os.set_inheritable(inherited, False)
            fd, sentinel = pipe_handle, duplicate(pipe_handle)
        except _SHORT as problem:
            if _reports_shortage(problem):
                sys.exit(EX_TEMPFAIL)
            raise
    process._exit_work_follows = True
    atexit.register(_ignore_timers)
    # `atexit` calls the functions in the reverse order of their registration.
    util._register_exit(again=True)
    try:
        code = _main(fd, sentinel)
    finally:
        flush_without_fail()
    sys.exit(code)


# The errors that a shortage raises during imports: also `ImportError` (for a shared library) and `RuntimeError` (for a thread).
_SHORT = (MemoryError, OSError, ImportError, RuntimeError)


def _reports_shortage(problem: BaseException) -> bool:
    """Return whether a shortage keeps this process from starting, and print the error if so; the caller exits with `EX_TEMPFAIL`.

    A pool starts another worker later.  Errors of these types from the program's main module count as shortages too, since their
    origin is unknown.
    """
    try:
        from ._impl.start.shortage import stood_in_the_way

        short = stood_in_the_way(problem)
    except (MemoryError, OSError):
        short = True
    if short:
        process._say(lambda: sys.excepthook(type(problem), problem, problem.__traceback__))
    return short


def _ignore_timers() -> None:
    """Ignore the signals of the program's timers: at the end the interpreter removes the handlers, and a timer would kill it."""
    signal = sys.modules.get("signal")  # a program that has set handlers has imported it
    for name in ("SIGALRM", "SIGVTALRM", "SIGPROF"):
        number = getattr(signal, name, None)
        if signal is not None and number is not None and callable(signal.getsignal(number)):
            signal.signal(number, signal.SIG_IGN)


def _take_over_windows(pipe_handle: int, parent_pid: int | None) -> tuple[int, Any]:
    """Return the pipe as a descriptor, and a handle to wait for the parent's end."""
    from importlib import import_module

    _winapi, msvcrt = import_module("_winapi"), import_module("msvcrt")
    duplicate = vars(reduction)["duplicate"]
    rights = _winapi.SYNCHRONIZE | _winapi.PROCESS_DUP_HANDLE
    parent = None if parent_pid is None else _winapi.OpenProcess(rights, False, parent_pid)
    mine = duplicate(pipe_handle, source_process=parent)
    return msvcrt.open_osfhandle(mine, os.O_RDONLY), parent


def _main(fd: Any, parent_sentinel: int | None, row: list[int] | None = None) -> int:
    """Read the process object from ``fd``, run it, and return the exit code.

    Args:
        fd: the descriptor of the data pipe, or a file with the data; it is closed.
        parent_sentinel: a descriptor that becomes readable when the parent ends.
        row: the descriptors that the parent sent, if the data names descriptors by their index.
    """
    try:
        told = _hear(fd, row)
    except Exception as problem:
        if _is_worker and (unguarded := _code_if_unguarded(problem)) is not None:
            return unguarded
        if isinstance(problem, _SHORT) and _reports_shortage(problem):
            return EX_TEMPFAIL
        raise
    if told is None:
        return 1  # the parent has closed the pipe before it wrote anything
    becoming, line = told
    if line is not None:
        if parent_sentinel is not None:
            close_number(parent_sentinel)
        parent_sentinel = line
    code: int = becoming._bootstrap(parent_sentinel)
    return code


def _code_if_unguarded(problem: Exception) -> int | None:
    """Return the exit code of a pool's worker that ends with `problem` because the main module starts processes; else None."""
    # A process that has raised the error has imported the module; an import may fail for lack of memory.
    unguarded = sys.modules.get(f"{__package__}._impl.start.unguarded")
    return None if unguarded is None or not unguarded.is_reason(problem) else unguarded.EXIT_CODE


# Whether this process is a worker of a pool, which reads its standard error.
_is_worker = False


def _hear(fd: Any, row: list[int] | None) -> tuple[Any, int | None] | None:
    """Read the preparation data from ``fd`` and apply it; return the process object and the lifeline.

    None means that the parent has closed the pipe before it wrote anything.
    """
    global _is_worker
    me = process.current_process()
    with open(fd, "rb") if type(fd) is int else fd as from_parent:
        if not from_parent.peek(1):
            return None
        # Code that starts a process now runs at the top level of the main module, which raises RuntimeError.
        vars(me)["_inheriting"] = True
        try:
            told = load(from_parent)
            if (line := told.get("lifeline")) is not None:
                line = line if row is None else row[line]
                _keep_from_children(line)
            if (stderr := told.get("stderr")) is not None:
                _is_worker = True
                if sys.platform != "win32":  # there it is the standard error from the start on
                    os.dup2(stderr if row is None else row[stderr], 2)
                if row is not None:  # the worker has another copy of it
                    os.close(row[stderr])
            if (around := told.get("surroundings")) is not None:
                from ._impl.start.surroundings import apply_early

                apply_early(*around)
            with SteadyFinder():
                prepare(told)
                return load(from_parent), line
        finally:
            del vars(me)["_inheriting"]


def _keep_from_children(number: int) -> None:
    """Prevent that processes which this one starts inherit a descriptor that this one has inherited."""
    if sys.platform == "win32":
        from ._maniple import claim_handle

        claim_handle(number)
    else:
        os.set_inheritable(number, False)


def _check_not_importing_main() -> None:
    _take_over_if_frozen()
    if getattr(process.current_process(), "_inheriting", False):
        from ._impl.start.unguarded import error_in_child

        raise error_in_child("starts a process")


# ---------------------------------------------------------------- preparation data


def _main_module_data() -> dict[str, str]:
    """Return how a child finds the main module: by name, by path, or (an empty dict) not at all.

    Children do not load the ``__main__`` of a folder, an archive or a package, since it has no guard.
    """
    main = sys.modules["__main__"]
    if WINSERVICE or getattr(sys, "frozen", False):  # a frozen program runs its main module by itself, in each process
        return {}
    name = getattr(getattr(main, "__spec__", None), "name", None)
    if name is not None:
        return {} if name.rpartition(".")[2] == "__main__" else {"init_main_from_name": name}
    path = getattr(main, "__file__", None)
    if path is None:
        return {}
    if process.ORIGINAL_DIR is not None:  # without effect on an absolute path
        path = os.path.join(process.ORIGINAL_DIR, path)
    path = os.path.normpath(path)
    # Otherwise the path names the input of a session, a pipe, or a removed script.
    return {"init_main_from_path": path} if os.path.isfile(path) else {}


def _about_main() -> dict[str, Any]:
    """Return the attributes of a main module that a child does not load: its file, and the base of its relative imports."""
    main = sys.modules["__main__"]
    about = {name: getattr(main, name, None) for name in ("__doc__", "__file__", "__package__")}
    about["__spec__"] = getattr(getattr(main, "__spec__", None), "name", None)
    return {name: value for name, value in about.items() if isinstance(value, str)}


def _leave_out_main(told: dict[str, Any]) -> None:
    """Change the preparation data of a child that does not load the main module."""
    for name in ("init_main_from_name", "init_main_from_path"):
        told.pop(name, None)
    told["init_main_empty"] = _about_main()


def _directory_data() -> dict[str, Any]:
    """Return the current directory for the child: as a path if the child can enter it by path, else as a descriptor."""
    with suppress(OSError):
        here = os.getcwd()
        if os.access(here, os.X_OK):
            return {"dir": here}
    from ._impl.start import current_directory  # late: few programs need it

    handle = current_directory.handle()
    return {} if handle is None else {"dir_handle": handle}


def get_preparation_data(name: str) -> dict[str, Any]:
    """Return a dict that describes this interpreter to a child with the name `name`."""
    _check_not_importing_main()
    # The child's objects of main-module classes refer to this name. The main module may have changed since the package's import.
    sys.modules["__mp_main__"] = sys.modules["__main__"]
    start = process.ORIGINAL_DIR
    # '' means the directory in which the program was started.
    search = [start if entry == "" and start is not None else entry for entry in sys.path]
    told: dict[str, Any] = dict(
        name=name,
        authkey=process.current_process().authkey,
        start_method=get_start_method(allow_none=True),  # does not fix the start method
        sys_path=search,
        sys_argv=sys.argv,
        orig_dir=start,
        **_directory_data(),
        log_to_stderr=util._log_to_stderr,
        **(main := _main_module_data()),
    )
    if not main and not getattr(sys, "frozen", False):  # a frozen program runs its main module in each child by itself
        told["init_main_empty"] = _about_main()
    if (log := util._logger) is not None:
        told["log_level"] = log.getEffectiveLevel()
    return told


# The main modules that were replaced, kept because their functions may still be in use.
old_main_modules: list[types.ModuleType] = []


def prepare(data: dict[str, Any]) -> None:
    """Set up this interpreter as the dict of `get_preparation_data` describes."""
    me = process.current_process()
    if "name" in data:
        me.name = data["name"]
    if "authkey" in data:
        me.authkey = data["authkey"]
    if data.get("log_to_stderr"):
        util.log_to_stderr()
    if "log_level" in data:
        util.get_logger().setLevel(data["log_level"])
    if "sys_path" in data:
        sys.path = data["sys_path"]
    if "sys_argv" in data:
        sys.argv = data["sys_argv"]
    if "dir" in data:
        os.chdir(data["dir"])
    elif "dir_handle" in data:
        from ._impl.start import current_directory

        current_directory.enter(data["dir_handle"])
    if "orig_dir" in data:
        process.ORIGINAL_DIR = data["orig_dir"]
    if "start_method" in data:
        set_start_method(data["start_method"], force=True)
    if "init_main_from_name" in data:
        _fixup_main_from_name(data["init_main_from_name"])
    elif "init_main_from_path" in data:
        _fixup_main_from_path(data["init_main_from_path"])
    elif "init_main_empty" in data:
        # The interpreter's own main module is not part of the program. Functions that arrive by value use this module's
        # globals.
        fresh = types.ModuleType("__mp_main__")
        vars(fresh)["__builtins__"] = sys.modules["builtins"]  # as the import system sets it
        vars(fresh).update(data["init_main_empty"])
        if (name := data["init_main_empty"].get("__spec__")) is not None:
            fresh.__spec__ = type(sys.__spec__)(name, None, origin=getattr(fresh, "__file__", None))
        _install_main(fresh)
    if data.get("main_definitions"):
        _resolve_late(sys.modules["__main__"], *data["main_definitions"])


def _resolve_late(main: types.ModuleType, names: frozenset[str], pickled: bytes) -> None:
    """Add definitions of the parent's main module that loading it did not produce; they are unpickled at the first access."""
    unread = [pickled]

    def resolve(name: str) -> Any:
        if name in names:
            while unread:
                for other, value in loads(unread.pop()).items():
                    vars(main).setdefault(other, value)
            if name in vars(main):
                return vars(main)[name]
        raise AttributeError(f"module {main.__name__!r} has no attribute {name!r}")

    vars(main).setdefault("__getattr__", resolve)


def _install_main(loaded: types.ModuleType) -> None:
    """Make the module the main module, under both names."""
    old_main_modules.append(sys.modules["__main__"])
    sys.modules["__mp_main__"] = sys.modules["__main__"] = loaded


def _module_of(content: dict[str, Any]) -> types.ModuleType:
    """Return a module with the globals that `runpy` returned."""
    made = types.ModuleType("__mp_main__")
    vars(made).update(content)
    return made


def _run_script(path: str) -> types.ModuleType:
    """Run the program at the path, and return its module.

    An ordinary script is run without `runpy`, whose imports take longer than the rest of a child's start.
    """
    source = b"\0"
    if path.endswith((".py", ".pyw")) and os.path.isfile(path):
        with io.open_code(os.path.abspath(path)) as file:
            source = file.read()
    if b"\0" in source:  # a folder, an archive, compiled code
        import runpy

        return _module_of(runpy.run_path(path, run_name="__mp_main__"))
    code = compile(source, path, "exec", dont_inherit=True)
    script = types.ModuleType("__mp_main__")
    vars(script).update(__file__=path, __cached__=None, __package__="")
    sys.modules["__mp_main__"] = script
    called_as, sys.argv[:1] = sys.argv[:1], [path]
    try:
        exec(code, vars(script))
    except BaseException:
        del sys.modules["__mp_main__"]
        raise
    finally:
        sys.argv[:1] = called_as
    return script


def _fixup_main_from_name(mod_name: str) -> None:
    # The __main__ of a directory, zip file or package has no guard.
    if mod_name.rpartition(".")[2] == "__main__":
        return
    present = getattr(sys.modules["__main__"], "__spec__", None)
    if getattr(present, "name", None) == mod_name:  # copied by a fork
        return
    import runpy

    _install_main(_module_of(runpy.run_module(mod_name, run_name="__mp_main__", alter_sys=True)))


def _fixup_main_from_path(main_path: str) -> None:
    stem = os.path.splitext(os.path.basename(main_path))[0]
    # IPython's launcher has no guard, and a child needs nothing of it.
    if stem == "ipython":
        return
    if getattr(sys.modules["__main__"], "__file__", None) == main_path:  # copied by a fork
        return
    _install_main(_run_script(main_path))


def import_main_path(main_path: str) -> None:
    """Load the file `main_path` as the main module, unless it is loaded already."""
    _fixup_main_from_path(main_path)


public_module.finish(globals())
