"""Makes ready what the make targets need: the virtual environment, its tools, the built extension.

    python3 scripts/setup.py .venv extension test

The steps are `extension` (the package itself, built in release mode and installed as a wheel), `cpython` (CPython's own tests,
where the interpreter came without them) and the lists in requirements/: `test`, `lint`, `bench`, `soak`. A step whose inputs
have not changed since it was last taken costs nothing: the digest of its inputs is kept in the environment.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FLOOR = (3, 11)
LISTS = {
    "build": "requirements/build.txt",
    "test": "requirements/test.txt",
    "lint": "requirements/lint.txt",
    "bench": "benchmarks/python/requirements.txt",
    "soak": "requirements/soak.txt",
}
# What the wheel is made of. Contents count, not dates, so changing branches to and fro builds nothing.
SOURCES = ["Cargo.toml", "Cargo.lock", "pyproject.toml", "README.md", "crates", "python"]


def main(folder: str, *steps: str) -> None:
    check_version()
    environment = Environment(Path(folder).absolute())
    environment.make()
    for step in steps:
        if step == "extension":
            environment.install("build")
            environment.build()
        elif step == "cpython":
            environment.bring_tests()
        elif step in LISTS:
            environment.install(step)
        else:
            sys.exit(f"no step is called {step}; there are: extension, cpython, {', '.join(LISTS)}")


def check_version() -> None:
    if sys.version_info[:2] < FLOOR:
        needed, found = (".".join(map(str, version[:2])) for version in (FLOOR, sys.version_info))
        sys.exit(
            f"maniple needs Python {needed} or newer, but {sys.executable} is {found}. "
            "Name another one: make PYTHON=python3.12 ..."
        )


class Environment:
    """One virtual environment, and what has been put into it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.python = folder / "bin" / "python"

    def make(self) -> None:
        """Make it, unless one that works and is of this Python's version is there."""
        if self._fits():
            return
        if self.folder.exists():
            if not (self.folder / "pyvenv.cfg").exists():
                sys.exit(f"{self.folder} is there, but is no virtual environment. Name another one: make VENV=...")
            shutil.rmtree(self.folder)
        say(f"making {self.folder} with Python {version_text()}")
        make = [sys.executable, "-m", "venv"]
        if subprocess.call([*make, str(self.folder)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL):
            # Debian and Ubuntu package pip separately; a manually unpacked interpreter may lack it, too.
            shutil.rmtree(self.folder, ignore_errors=True)
            if subprocess.call([*make, "--without-pip", str(self.folder)]) or not self._bring_pip():
                shutil.rmtree(self.folder, ignore_errors=True)
                sys.exit("Python's venv does not work here. On Debian and Ubuntu: apt-get install python3-venv")

    def _bring_pip(self) -> bool:
        """Put the newest pip into it, fetched by the pip of another interpreter."""
        for other in ("python3", "python"):
            with tempfile.TemporaryDirectory() as store:
                fetch = [other, "-m", "pip", "--quiet", "--disable-pip-version-check", "download", "--no-deps"]
                try:
                    subprocess.run([*fetch, "--dest", store, "pip"], check=True)
                    (wheel,) = Path(store).glob("pip-*.whl")
                    subprocess.run([self.python, wheel / "pip", "--quiet", "install", "--no-index", wheel], check=True)
                except (OSError, ValueError, subprocess.CalledProcessError):
                    continue
                return True
        return False

    def _fits(self) -> bool:
        question = "import sys, pip; print('{}.{}'.format(*sys.version_info)); print(sys.prefix)"
        try:
            answer = subprocess.run([self.python, "-c", question], capture_output=True, text=True)
            # Its scripts name the folder that it was made in: a copied or moved environment does not work.
            script = (self.folder / "bin" / "activate").read_text()
        except OSError:
            return False
        return answer.stdout.split("\n")[0] == version_text() and str(self.folder) in script

    def install(self, name: str) -> None:
        """Install one of the lists of requirements."""
        wanted = LISTS[name]
        digest = digest_of([ROOT / wanted])
        if self._taken(name) != digest:
            say(f"installing {wanted}")
            self._pip("install", "--requirement", str(ROOT / wanted))
            self._note(name, digest)

    def bring_tests(self) -> None:
        """See that CPython's own tests are there: with the interpreter, or unpacked in the environment from Debian's package."""
        unpacked = self.folder / "cpython-tests"
        if has_tests() or unpacked.exists():
            return
        name = f"libpython{version_text()}-testsuite"
        # A distribution's tests are those of its own interpreter, patches included.
        if sysconfig.get_path("stdlib") == f"/usr/lib/python{version_text()}" and shutil.which("apt-get"):
            say(f"fetching {name}: CPython's own tests")
            if fetch_package(name, unpacked):
                return
        sys.exit(
            f"This Python {version_text()} ({sys.executable}) came without CPython's own tests, the package `test`. "
            f"Install it: on Debian and Ubuntu apt-get install {name}, on Fedora dnf install python3-test. "
            "A Python built from source has it; make PYTHON=... names another one."
        )

    def build(self) -> None:
        """Build the wheel and install it."""
        digest = digest_of(ROOT / source for source in SOURCES)
        if self._taken("extension") == digest:
            return
        say("building the extension in release mode")
        wheels = self.folder / "wheels"
        shutil.rmtree(wheels, ignore_errors=True)
        # Linked as it must be here: this wheel is for this machine alone.
        maturin = [self.python, "-m", "maturin", "build", "--release", "--locked", "--auditwheel", "skip"]
        run([*maturin, "--interpreter", self.python, "--out", wheels])
        (wheel,) = wheels.glob("*.whl")
        self._pip("install", "--force-reinstall", "--no-deps", str(wheel))
        self._note("extension", digest)

    def _pip(self, *arguments: str) -> None:
        run([self.python, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments])

    def _taken(self, step: str) -> str | None:
        """The digest that `step` was last taken with."""
        try:
            return (self.folder / f".{step}-taken").read_text()
        except OSError:
            return None

    def _note(self, step: str, digest: str) -> None:
        (self.folder / f".{step}-taken").write_text(digest)


def has_tests() -> bool:
    try:
        return importlib.util.find_spec("test._test_multiprocessing") is not None
    except ImportError:
        return False


def fetch_package(name: str, folder: Path) -> bool:
    """Unpack a Debian package into a folder, without installing it."""
    with tempfile.TemporaryDirectory() as store:
        for prepare in ([], ["apt-get", "update", "--quiet"]):
            # A fresh machine has no list of packages yet; only root may fetch it.
            if prepare and (os.getuid() != 0 or subprocess.call(prepare, stdout=subprocess.DEVNULL)):
                return False
            if subprocess.call(["apt-get", "--quiet", "download", name], cwd=store, stdout=subprocess.DEVNULL) == 0:
                break
        found = list(Path(store).glob("*.deb"))
        fresh = folder.with_name(f"{folder.name}.new")
        if len(found) != 1 or subprocess.call(["dpkg-deb", "--extract", str(found[0]), str(fresh)]):
            return False
        fresh.rename(folder)
    return True


def digest_of(paths) -> str:
    """One digest for the names and contents of files and of all files below folders, save what builds leave there."""
    total = hashlib.sha256()
    for path in paths:
        below = sorted(path.rglob("*")) if path.is_dir() else [path]
        for file in below:
            if file.is_file() and file.suffix not in (".pyc", ".so", ".pyd"):
                total.update(f"{file.relative_to(ROOT)}\0{file.stat().st_size}\0".encode())
                total.update(file.read_bytes())
    return total.hexdigest()


def version_text() -> str:
    return "{}.{}".format(*sys.version_info)


def say(text: str) -> None:
    print(f"-- {text}", flush=True)


def run(command: list) -> None:
    """Run it from the checkout; the end of this program if it fails, with its exit code."""
    environ = {**os.environ, "PYO3_PYTHON": str(command[0])}
    code = subprocess.call(list(map(str, command)), cwd=ROOT, env=environ)
    if code:
        sys.exit(f"failed with exit code {code}: {' '.join(map(str, command))}")


if __name__ == "__main__":
    main(*sys.argv[1:])
