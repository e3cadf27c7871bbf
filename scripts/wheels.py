"""Builds the wheels and the source distribution, checks each of them, and tries out those that this machine can run.

    python3 scripts/wheels.py [--only NAME,...] [--out FOLDER] [--quick] [--windows-kit KIT] [--list]
    python3 scripts/wheels.py --check FILE...

Needs cargo, pip and apt alone: maturin, zig, auditwheel and twine are packages of requirements/release.txt, the standard
library of each target is rustup's, zig links for Linux, and apt's mingw-w64 for Windows. Nothing is published.

| check of each file | by |
| --- | --- |
| every file of python/maniple that git lists, the native module, the licences, and nothing else | this script |
| the record names each file with its digest | this script |
| the tag says what the file is for | this script |
| the libraries that it needs are those of the tag's systems | auditwheel (manylinux), and maturin while it builds |
| the metadata | twine check --strict |

`--check` does no more than that. After a build each file is tried: a wheel is installed into an environment that has nothing else, and the
examples in Python run from there, outside the checkout. The wheel for Windows runs under Wine with the interpreter of the kit
of scripts/test_windows.sh, that for aarch64 under qemu with Debian's interpreter for it. `--quick` builds without
optimization, for tries of this script. Ends with 1 if a file could not be built, is incomplete or does not run.
"""

from __future__ import annotations

import argparse
import base64
import csv
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from setup import Environment

ROOT = Path(__file__).resolve().parent.parent
STORE = ROOT / "target" / "wheels"
# Seconds for a build; for anything else.
BUILD_LIMIT, LIMIT = 5400, 900
EXAMPLES = ["squares.py", "wordcount.py"]
LICENCES = ["LICENSE-APACHE", "LICENSE-MIT"]
# What a source distribution consists of besides the package in Python.
OF_SOURCE = re.compile(
    r"(Cargo\.(toml|lock)|README\.md|PKG-INFO|pyproject\.toml|LICENSE-(APACHE|MIT)|crates/maniple[\w-]*/.+)"
)
# The linker for Windows.
MINGW = "x86_64-w64-mingw32-gcc"
QUICK = {"OPT_LEVEL": "1", "LTO": "off", "CODEGEN_UNITS": "16", "DEBUG": "0"}


class Problem(Exception):
    """A file that could not be built, is incomplete, or does not run."""


@dataclass(frozen=True)
class Wheel:
    """What to build, and how its file is called."""

    name: str
    target: str
    tag: str
    arguments: tuple[str, ...] = ()
    # The version of a free-threaded Python, which has no stable interface before 3.15.
    threaded: str = ""

    @property
    def module(self) -> str:
        """The file of the native module."""
        if "windows" in self.target:
            return "maniple/_maniple.pyd"
        if self.threaded:
            processor = self.target.split("-")[0]
            return f"maniple/_maniple.cpython-{self.threaded.replace('.', '')}t-{processor}-linux-gnu.so"
        return "maniple/_maniple.abi3.so"


def linux(name: str, target: str, tag: str, processor: str, threaded: str = "") -> Wheel:
    python = f"cp{threaded.replace('.', '')}-cp{threaded.replace('.', '')}t" if threaded else "cp311-abi3"
    return Wheel(name, target, f"{python}-{tag}_{processor}", ("--compatibility", tag), threaded)


# glibc 2.31 is that of systems with Linux 5.3, which the package needs.
WHEELS = [
    linux("manylinux-x86_64", "x86_64-unknown-linux-gnu", "manylinux_2_31", "x86_64"),
    linux("manylinux-aarch64", "aarch64-unknown-linux-gnu", "manylinux_2_31", "aarch64"),
    linux("musllinux-x86_64", "x86_64-unknown-linux-musl", "musllinux_1_2", "x86_64"),
    linux("musllinux-aarch64", "aarch64-unknown-linux-musl", "musllinux_1_2", "aarch64"),
    Wheel("windows-x86_64", "x86_64-pc-windows-gnu", "cp311-abi3-win_amd64"),
    linux("threaded-3.14-x86_64", "x86_64-unknown-linux-gnu", "manylinux_2_31", "x86_64", "3.14"),
    linux("threaded-3.14-aarch64", "aarch64-unknown-linux-gnu", "manylinux_2_31", "aarch64", "3.14"),
    linux("threaded-3.15-x86_64", "x86_64-unknown-linux-gnu", "manylinux_2_31", "x86_64", "3.15"),
    linux("threaded-3.15-aarch64", "aarch64-unknown-linux-gnu", "manylinux_2_31", "aarch64", "3.15"),
]
# What only a Mac can link; the release workflow builds them, and `--check` knows them.
ELSEWHERE = [
    Wheel(f"macos-{processor}", f"{target}-apple-darwin", f"cp311-abi3-macosx_11_0_{processor}")
    for processor, target in (("arm64", "aarch64"), ("x86_64", "x86_64"))
]
SDIST = "sdist"
NAMES = [*(wheel.name for wheel in WHEELS), SDIST]


# ---- what is in a file


def package_files() -> set[str]:
    """The files of the package in Python, as git lists them, deleted files included: a wheel without one of these is incomplete."""
    listed = subprocess.check_output(["git", "ls-files", "-z", "python/maniple"], cwd=ROOT, text=True)
    return {name.removeprefix("python/") for name in listed.split("\0") if name}


def compare(found: set[str], wanted: set[str], what: str) -> None:
    missing, surplus = sorted(wanted - found), sorted(found - wanted)
    if missing:
        raise Problem(f"{what} lacks {', '.join(missing)}")
    if surplus:
        raise Problem(f"{what} has what does not belong there: {', '.join(surplus)}")


def check_wheel(file: Path) -> None:
    """Its name, its files, its record."""
    version, tag = file.stem.split("-", 2)[1:]
    wheel = next((wheel for wheel in [*WHEELS, *ELSEWHERE] if wheel.tag == tag), None)
    if wheel is None:
        raise Problem(f"{file.name}: no wheel has the tag {tag}")
    info = f"maniple-{version}.dist-info"
    metadata = {f"{info}/{name}" for name in ("METADATA", "WHEEL", "RECORD", "entry_points.txt")}
    metadata |= {f"{info}/licenses/{name}" for name in LICENCES}
    metadata |= {f"{info}/sboms/maniple-python.cyclonedx.json"}
    with zipfile.ZipFile(file) as archive:
        names = archive.namelist()
        compare(set(names), package_files() | metadata | {wheel.module}, file.name)
        if f"Tag: {tag}" not in archive.read(f"{info}/WHEEL").decode().splitlines():
            raise Problem(f"{file.name}: the tag in its file WHEEL is another one")
        if archive.getinfo(wheel.module).file_size < 500_000:
            raise Problem(f"{file.name}: the native module is too small to be one")
        record = list(csv.reader(archive.read(f"{info}/RECORD").decode().splitlines()))
        compare({row[0] for row in record}, set(names), f"the record of {file.name}")
        for name, digest, _ in record:
            if name != f"{info}/RECORD":
                found = base64.urlsafe_b64encode(hashlib.sha256(archive.read(name)).digest()).decode().rstrip("=")
                if digest != f"sha256={found}":
                    raise Problem(f"{file.name}: the record has another digest of {name}")


def check_sdist(file: Path) -> None:
    """Its files: the package in Python, the crates that it is made of, and what their build needs."""
    top = file.name.removesuffix(".tar.gz")
    with tarfile.open(file) as archive:
        names = {member.name.removeprefix(f"{top}/") for member in archive if member.isfile()}
    python = {f"python/{name}" for name in package_files()}
    tracked = subprocess.check_output(["git", "ls-files", "-z", "crates"], cwd=ROOT, text=True).split("\0")
    crates = {name for name in tracked if re.match(r"crates/maniple-(sys|engine|python)/(src/|Cargo\.toml)", name)}
    needed = {"Cargo.toml", "Cargo.lock", "README.md", "PKG-INFO", "pyproject.toml", *LICENCES}
    compare(names, python | crates | needed | {name for name in names if OF_SOURCE.fullmatch(name)}, file.name)


def check(tools: Path, file: Path) -> None:
    """Everything that a file says of itself."""
    if file.suffix == ".whl":
        check_wheel(file)
        # auditwheel reads the C library of this system, which is not musl; maturin has checked such a wheel while it built it.
        if "manylinux" in file.name:
            wanted = file.stem.rsplit("-", 1)[1]
            said = run([tools / "auditwheel", "show", file], quiet=True)
            if f'"{wanted}"' not in " ".join(said.split()):
                raise Problem(f"{file.name}: auditwheel finds another tag\n{said}")
    else:
        check_sdist(file)
    run([tools / "twine", "check", "--strict", file], quiet=True)


# ---- building


def run(command: list, *, limit: int = LIMIT, quiet: bool = False, cwd: Path = ROOT, **environ: str) -> str:
    """Run it; its output if `quiet`. A failure is a `Problem`."""
    line = " ".join(map(str, command))
    try:
        done = subprocess.run(
            list(map(str, command)),
            cwd=cwd,
            env={**clean_environ(), **environ},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if quiet else None,
            stderr=subprocess.STDOUT if quiet else None,
            text=True,
            errors="replace",
            timeout=limit,
        )
    except subprocess.TimeoutExpired as late:
        raise Problem(f"{line}: not done after {limit} seconds") from late
    except OSError as missing:
        raise Problem(f"{line}: {missing}") from missing
    if done.returncode:
        raise Problem(f"{line}: exit code {done.returncode}\n{done.stdout or ''}")
    return done.stdout or ""


def clean_environ() -> dict[str, str]:
    """This process's environment without what is meant for builds for this machine."""
    unwanted = {"PYO3_PYTHON", "PYO3_CONFIG_FILE", "PYTHONPATH", "RUSTFLAGS", "CARGO_BUILD_TARGET", "VIRTUAL_ENV"}
    return {name: value for name, value in os.environ.items() if name not in unwanted}


def build_environ(quick: bool) -> dict[str, str]:
    environ = {"CARGO_TARGET_DIR": os.environ.get("CARGO_TARGET_DIR", str(STORE / "build"))}
    if quick:
        environ |= {f"CARGO_PROFILE_RELEASE_{name}": value for name, value in QUICK.items()}
    return environ


def build(tools: Path, wheel: Wheel, out: Path, quick: bool) -> Path:
    """Build a wheel; its file."""
    installed = run(["rustup", "target", "list", "--installed"], quiet=True) if shutil.which("rustup") else wheel.target
    if wheel.target not in installed.split():
        run(["rustup", "target", "add", wheel.target])
    environ = build_environ(quick) | {"PATH": f"{tools}{os.pathsep}{os.environ['PATH']}"}
    if wheel.threaded:
        # No such interpreter has to be here: this is what PyO3 would ask it.
        config = STORE / f"pyo3-{wheel.threaded}t.txt"
        config.write_text(
            f"implementation=CPython\nversion={wheel.threaded}\nshared=true\npointer_width=64\n"
            "build_flags=Py_GIL_DISABLED\nsuppress_build_script_link_lines=true\n"
        )
        environ["PYO3_CONFIG_FILE"] = str(config)
    command = [tools / "maturin", "build", "--release", "--locked", "--target", wheel.target, *wheel.arguments]
    if "windows" in wheel.target:
        # Not zig: maturin 1.16 exports `PyInit_maniple._maniple` by its name there, which is no function of a module in a package.
        if shutil.which(MINGW) is None:
            raise Problem(f"{MINGW} is missing (apt-get install gcc-mingw-w64-x86-64)")
        environ["CARGO_TARGET_X86_64_PC_WINDOWS_GNU_LINKER"] = MINGW
    else:
        command.append("--zig")
    for old in out.glob(f"maniple-*-{wheel.tag}.whl"):
        old.unlink()
    run([*command, "--out", out], limit=BUILD_LIMIT, **environ)
    return the_one(out, f"maniple-*-{wheel.tag}.whl")


def build_sdist(tools: Path, out: Path) -> Path:
    for old in out.glob("maniple-*.tar.gz"):
        old.unlink()
    run([tools / "maturin", "sdist", "--out", out])
    return the_one(out, "maniple-*.tar.gz")


def the_one(folder: Path, pattern: str) -> Path:
    found = sorted(folder.glob(pattern))
    if len(found) != 1:
        there = ", ".join(file.name for file in folder.iterdir()) or "nothing"
        raise Problem(f"no file {pattern} was made; there is {there}")
    return found[0]


# ---- trying out


def fresh(name: str) -> Path:
    folder = STORE / "try" / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def bring_examples(folder: Path) -> list[Path]:
    """Copies of the examples, and words to count: nothing of the checkout is beside them."""
    words = folder / "words"
    words.mkdir()
    for name in ("README.md", "ARCHITECTURE.md"):
        shutil.copy(ROOT / name, words / f"{Path(name).stem}.py")
    return [Path(shutil.copy(ROOT / "examples" / "python" / name, folder)) for name in EXAMPLES]


def show_examples(python: list, folder: Path, words: str, **environ: str) -> None:
    """Run the examples with an interpreter. They have to print something."""
    for example in bring_examples(folder):
        arguments = [words] if example.name == "wordcount.py" else []
        said = run([*python, example.name, *arguments], quiet=True, cwd=folder, **environ)
        if not said.strip():
            raise Problem(f"{example.name} printed nothing")
        print(f"   {example.name}: {said.strip().splitlines()[-1]}", flush=True)


def try_native(file: Path, name: str, quick: bool) -> str:
    """Install it into an environment of this interpreter and run the examples; what was done."""
    folder = fresh(name)
    run([sys.executable, "-m", "venv", folder / "environment"])
    python = folder / "environment" / "bin" / "python"
    # The source distribution is compiled here, with the tools that it names itself.
    environ = build_environ(quick) if file.suffix == ".gz" else {}
    install = [python, "-m", "pip", "--quiet", "--disable-pip-version-check", "install", file]
    run(install, limit=BUILD_LIMIT, **environ)
    show_examples([python], folder, "words")
    return f"installed and run with Python {sys.version_info[0]}.{sys.version_info[1]}"


def install_aside(tools: Path, file: Path, folder: Path, platform: str, abi: str, version: str) -> None:
    """Install it as pip does on another system, with what it requires."""
    pip = [tools / "python", "-m", "pip", "--quiet", "--disable-pip-version-check", "install", "--target", folder]
    other = ["--only-binary=:all:", "--platform", platform, "--implementation", "cp", "--python-version", version]
    run([*pip, *other, "--abi", abi, "--no-deps", file])
    run([*pip, "--no-deps", "cloudpickle"])


def try_windows(tools: Path, file: Path, name: str, kit: Path) -> str:
    python = next(iter(sorted(kit.glob("py3*/python.exe"))), None)
    if python is None:
        return f"not run: no kit with Wine and a Python for Windows in {kit} (--windows-kit)"
    folder = fresh(name)
    install_aside(tools, file, folder, "win_amd64", "abi3", "3.11")
    show_examples([kit / "run", python], folder, "words")
    return f"installed and run under Wine with {python.parent.name}"


def try_aarch64(tools: Path, file: Path, name: str) -> str:
    """Run it under qemu with Debian's Python for that processor, unpacked beside the system."""
    emulator = shutil.which("qemu-aarch64-static")
    if emulator is None:
        return "not run: qemu is missing (apt-get install qemu-user-static)"
    try:
        system, version = foreign_python("arm64")
    except Problem as why:
        return f"not run: no Python for aarch64 ({str(why).splitlines()[0]})"
    folder = fresh(name)
    install_aside(tools, file, folder, "manylinux_2_31_aarch64", "abi3", version)
    python = [emulator, "-L", system, system / "usr" / "bin" / f"python{version}"]
    show_examples(python, folder, "words", PYTHONHOME=str(system / "usr"))
    return f"run under qemu with Python {version}"


def foreign_python(architecture: str) -> tuple[Path, str]:
    """Debian's interpreter for another processor: the folder that it is unpacked in, and its version."""
    store = STORE / architecture
    system = store / "system"
    if not (store / "done").exists():
        shutil.rmtree(store, ignore_errors=True)
        for folder in ("lists/partial", "archives/partial"):
            (store / folder).mkdir(parents=True)
        (store / "status").touch()
        settings = {
            "APT::Architecture": architecture,
            "APT::Architectures": architecture,
            "APT::Sandbox::User": "root",
            "Dir::State": store,
            "Dir::State::status": store / "status",
            "Dir::Cache": store,
        }
        apt = ["apt-get", "-qq", *(word for name, value in settings.items() for word in ("-o", f"{name}={value}"))]
        run([*apt, "update"], quiet=True)
        wanted = ["python3-minimal", "libpython3-stdlib"]
        run([*apt, "--yes", "--no-install-recommends", "--download-only", "install", *wanted], quiet=True)
        for package in sorted((store / "archives").glob("*.deb")):
            run(["dpkg-deb", "--extract", package, system], quiet=True)
        (store / "done").touch()
    found = sorted((system / "usr" / "bin").glob("python3.*"))
    if not found:
        raise Problem("the packages have no interpreter")
    return system, found[-1].name.removeprefix("python")


def try_out(tools: Path, wheel: Wheel | None, file: Path, options: argparse.Namespace) -> str:
    """Run what this machine can run; what was done, or why not."""
    if wheel is None:
        return try_native(file, SDIST, options.quick)
    if wheel.threaded:
        python = shutil.which(f"python{wheel.threaded}t")
        return "not run: no such interpreter here" if python is None else try_threaded(file, wheel.name, python)
    if "windows" in wheel.target:
        return try_windows(tools, file, wheel.name, options.windows_kit)
    if "musl" in wheel.target:
        return "not run: no Python with musl here"
    if wheel.target.startswith("aarch64"):
        return try_aarch64(tools, file, wheel.name)
    return try_native(file, wheel.name, options.quick)


def try_threaded(file: Path, name: str, python: str) -> str:
    folder = fresh(name)
    run([python, "-m", "venv", folder / "environment"])
    inside = folder / "environment" / "bin" / "python"
    run([inside, "-m", "pip", "--quiet", "--disable-pip-version-check", "install", file])
    show_examples([inside], folder, "words")
    return f"installed and run with {python}"


# ---- all of it


def work(tools: Path, options: argparse.Namespace) -> Iterator[tuple[str, str, bool]]:
    """The name of each file, the result, and whether that is good."""
    for name in options.only:
        print(f"-- {name}", flush=True)
        wheel = next((wheel for wheel in WHEELS if wheel.name == name), None)
        try:
            file = build(tools, wheel, options.out, options.quick) if wheel else build_sdist(tools, options.out)
            check(tools, file)
            tried = try_out(tools, wheel, file, options)
        except Problem as problem:
            print(problem, file=sys.stderr, flush=True)
            yield name, str(problem).splitlines()[0], False
        else:
            yield file.name, f"complete, {file.stat().st_size / 1e6:.1f} MB; {tried}", True


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Builds, checks and tries out wheels and the source distribution.")
    parser.add_argument("--only", default="", help=f"with commas between: {', '.join(NAMES)}")
    parser.add_argument("--out", type=Path, default=ROOT / "dist", help="where the files go (dist)")
    parser.add_argument("--quick", action="store_true", help="without optimization, to try this script")
    default = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "maniple-windows"
    parser.add_argument("--windows-kit", type=Path, default=default, help="the folder of scripts/test_windows.sh")
    parser.add_argument("--check", type=Path, nargs="+", metavar="FILE", help="check these files, and do no more")
    parser.add_argument("--list", action="store_true", help="the names of what is built")
    options = parser.parse_args()
    options.only = [name for name in options.only.split(",") if name] or NAMES
    if unknown := set(options.only) - set(NAMES):
        parser.error(f"there is no {', '.join(sorted(unknown))}; there are: {', '.join(NAMES)}")
    return options


def main() -> int:
    options = parsed()
    if options.list:
        print("\n".join(NAMES))
        return 0
    STORE.mkdir(parents=True, exist_ok=True)
    environment = Environment(STORE / "tools")
    environment.make()
    tools = environment.folder / "bin"
    pip = [tools / "python", "-m", "pip", "--quiet", "--disable-pip-version-check", "install"]
    try:
        run([*pip, "--requirement", ROOT / "requirements" / "release.txt"])
        for file in options.check or []:
            check(tools, file)
            print(f"{file.name}: complete")
    except Problem as problem:
        print(f"wheels: {problem}", file=sys.stderr)
        return 1
    if options.check:
        return 0
    options.out = options.out.absolute()
    options.out.mkdir(parents=True, exist_ok=True)
    results = list(work(tools, options))
    print()
    for name, what, _ in results:
        print(f"{name}: {what}")
    failed = [name for name, _, is_good in results if not is_good]
    print(f"wheels: {len(results) - len(failed)} passed, {len(failed)} failed")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
