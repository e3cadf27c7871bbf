"""A twin of the interpreter in which `multiprocessing` is another package.

The twin is a copy of the executable and a folder of links to the standard library. Python finds its library from the place
of its executable, so this needs no environment variable and no cooperation: it holds with `-I`, `-E` and `-S`, for programs
that a test starts, and for children of every start method. What the twin has otherwise than the interpreter:

- `multiprocessing` is `inside/stand_in.py`; the standard package is on no path;
- the C extensions under the standard package raise an error for the package under test (`inside/guarded.py`);
- the package under test and what it requires stand among the standard modules, as `-S` has no site-packages;
- for the tests of the executor, `concurrent.futures.ProcessPoolExecutor` is the package's (`inside/futures.py`);
- `test` has the modules that CPython 3.11.7 and 3.12.1 forget to install.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path

INSIDE = Path(__file__).resolve().parent / "inside"
STANDARD = "multiprocessing"
METHODS = ("fork", "spawn", "forkserver")
EXTENSIONS = ("_multiprocessing", "_posixshmem")
# A socket's path has at most 107 bytes, and the tests' folders and sockets need about 60 of them.
LONGEST_FOLDER = 40
# The test modules of the suites, as their names begin; what is no test module, such as `support`, is there as well.
OURS = ("test_multiprocessing", "test_concurrent_futures")
WRAPPER = """\
from test._test_multiprocessing import install_tests_in_module_dict

install_tests_in_module_dict(globals(), {method!r})
"""


# The folders of the twins that exist now.
FOLDERS: set[Path] = set()


class Missing(Exception):
    """What the tests need is not on this machine; the text says what to install."""


class Twin:
    """`package` is the one that `multiprocessing` is to mean; the standard name itself leaves everything as it is.

    With `executor`, the package's executor takes the place of the standard one, too.
    """

    #: seconds that the proof has for an answer
    patience = 120

    def __init__(self, package: str, extra: dict[str, Path] | None = None, executor: bool = False) -> None:
        self.package = package
        self.executor = executor
        parent = tempfile.gettempdir()
        if len(parent) > LONGEST_FOLDER:
            parent = "/tmp"
        self.folder = Path(tempfile.mkdtemp(prefix="mt-", dir=parent)).resolve()
        FOLDERS.add(self.folder)
        self.python = self.folder / "bin" / "python"
        self.library = self.folder / sys.platlibdir / standard_library().name
        self.tests = self.library / "test"
        # Extensions that are linked into the interpreter cannot be guarded.
        self.unguarded: list[str] = []
        try:
            self._build(extra or {})
        except BaseException:
            self.remove()
            raise

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        FOLDERS.discard(self.folder)

    def __enter__(self) -> Twin:
        return self

    def __exit__(self, *error: object) -> None:
        self.remove()

    def _build(self, extra: dict[str, Path]) -> None:
        self.python.parent.mkdir()
        self.library.mkdir(parents=True)
        # A copy: Python follows a link of the executable back to the library that it came with.
        shutil.copy2(os.path.realpath(sys._base_executable), self.python)  # type: ignore[attr-defined]
        for shared in standard_library().parent.glob("libpython*"):
            link(shared, self.library.parent / shared.name)
        replaced = {"test", "site-packages", "dist-packages", "sitecustomize.py", "lib-dynload"}
        if self.package != STANDARD:
            replaced.add(STANDARD)
        if self.executor:
            replaced.add("concurrent")
        for entry in standard_library().iterdir():
            if entry.name not in replaced:
                link(entry, self.library / entry.name)
        self._link_extensions()
        self._link_tests(extra)
        if self.package != STANDARD:
            for path in parts_of(self.package):
                link(path, self.library / path.name)
            self._write(STANDARD, "stand_in.py", PACKAGE=self.package)
        if self.executor:
            self._replace_executor()
        # A package has its own folder of bytecode; the standard library's is a link to the interpreter's.
        self._write("maniple_suite_worker", "worker.py", into="__main__.py")
        self._check()

    def _replace_executor(self) -> None:
        theirs = standard_library() / "concurrent"
        (self.library / "concurrent").mkdir()
        for entry in theirs.iterdir():
            if entry.name not in ("futures", "__pycache__"):
                link(entry, self.library / "concurrent" / entry.name)
        ours = Path("concurrent") / "futures"
        self._write(str(ours), "futures.py", PACKAGE=self.package, FILE=str(theirs / "futures" / "__init__.py"))
        for entry in (theirs / "futures").glob("[!_]*.py"):
            link(entry, self.library / ours / entry.name)
        link(theirs / "futures" / "_base.py", self.library / ours / "_base.py")

    def _link_extensions(self) -> None:
        store = self.library / "lib-dynload"
        store.mkdir()
        guarded = EXTENSIONS if self.package != STANDARD else ()
        self.unguarded = [name for name in guarded if name in sys.builtin_module_names]
        folder = standard_library() / "lib-dynload"
        for entry in folder.iterdir() if folder.is_dir() else ():
            name = entry.name.partition(".")[0]
            if name in guarded:
                self._write(name, "guarded.py", PACKAGE=self.package, NAME=name, FILE=str(entry))
            else:
                link(entry, store / entry.name)

    def test_folders(self) -> list[Path]:
        return test_folders()

    def _link_tests(self, extra: dict[str, Path]) -> None:
        self.tests.mkdir()
        folders = self.test_folders()
        # Files that are not linked here, such as another subject's tests of which some import a part, are found at their place.
        content = next(text for folder in folders if (text := folder / "__init__.py").is_file()).read_text()
        (self.tests / "__init__.py").write_text(f"{content}\n__path__ += {[str(folder) for folder in folders]!r}\n")
        for folder in folders:
            for entry in folder.iterdir():
                # Many interpreters come without the bytecode of their tests, in a folder that is not ours to write to. The
                # twin has its own, compiled once for all the spawned children.
                if entry.stem not in extra and entry.name != "__pycache__" and not of_other_tests(entry.name):
                    link(entry, self.tests / entry.name)
        for name, path in extra.items():
            # (A file that is linked here comes before one that `__path__` leads to.)
            link(path.resolve(), self.tests / (name if path.is_dir() else f"{name}.py"))
        for method in METHODS:
            name = f"test_multiprocessing_{method}"
            if not (self.tests / name).exists() and not (self.tests / f"{name}.py").exists():
                (self.tests / f"{name}.py").write_text(WRAPPER.format(method=method))

    def _write(self, name: str, template: str, into: str = "__init__.py", **values: str) -> None:
        """Write a package of the standard library from a file of `inside`."""
        text = (INSIDE / template).read_text()
        for key, value in values.items():
            text = text.replace(f"@{key}@", value)
        (self.library / name).mkdir()
        (self.library / name / into).write_text(text)

    def _check(self) -> None:
        """That the twin reads its own library, in the mode that looks at least around."""
        show = [str(self.python), "-I", "-S", "-c", "import os; print(os.__file__)"]
        answer = subprocess.run(show, capture_output=True, text=True, env=self.environment())
        if answer.stdout.strip() != str(self.library / "os.py"):
            raise Missing(
                f"{sys.executable} cannot be given another standard library: its copy says {answer.stdout}{answer.stderr}"
            )

    def environment(self, **more: str) -> dict[str, str]:
        """What the twin's processes get: nothing that leads Python elsewhere."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "VIRTUAL_ENV"))}
        return {**kept, **more}

    def modules_of(self, name: str) -> list[str]:
        """A test module of that name, or the test modules in the package of that name, as it is installed; or none."""
        folder = self.tests / name
        if folder.is_dir():
            return [f"test.{name}.{file.stem}" for file in sorted(folder.glob("test_*.py"))]
        return [f"test.{name}"] if (self.tests / f"{name}.py").exists() else []


def link(source: Path, place: Path) -> None:
    if not os.path.lexists(place):
        place.symlink_to(source)


def of_other_tests(name: str) -> bool:
    """Whether an entry of the tests' folder is a test of another subject. There are hundreds, and each link takes time."""
    return name.startswith("test_") and not name.startswith(OURS)


def standard_library() -> Path:
    return Path(sysconfig.get_path("stdlib")).resolve()


def test_folders() -> list[Path]:
    """Where this interpreter has CPython's tests: in its library, and those that scripts/setup.py unpacked beside it."""
    version = "{}.{}".format(*sys.version_info)
    unpacked = Path(sys.prefix) / "cpython-tests" / f"usr/lib/python{version}/test"
    folders = [folder for folder in (standard_library() / "test", unpacked) if folder.is_dir()]
    if not any((folder / "_test_multiprocessing.py").is_file() for folder in folders):
        raise Missing(
            f"CPython's own tests cannot run: this Python {version} ({sys.executable}) came without its tests, the package "
            f"`test`. On Debian and Ubuntu: apt-get install libpython{version}-testsuite. A Python built from source has them."
        )
    return folders


def parts_of(package: str) -> Iterator[Path]:
    """The files and folders, at the top of site-packages, of a package and of what it requires."""
    waiting, done = [package], set()
    while waiting:
        name = waiting.pop()
        if name in done:
            continue
        done.add(name)
        try:
            distribution = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            yield folder_of(name)
            continue
        tops = {file.parts[0] for file in distribution.files or () if file.parts[0] != ".."}
        yield from (Path(str(distribution.locate_file(top))).resolve() for top in sorted(tops - {"__pycache__"}))
        for requirement in distribution.requires or ():
            if "extra ==" not in requirement:
                waiting += re.findall(r"^[\w.-]+", requirement)


def folder_of(package: str) -> Path:
    """Of a package that no installer put there."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise Missing(f"{sys.executable} has no package {package}. `make build` installs maniple.")
    return Path(next(iter(spec.submodule_search_locations))).resolve()
