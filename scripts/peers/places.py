"""Where a peer is installed, and where its tests come from: all of it below build/peers, by pip and by name.

A peer has an environment of its own for each version of Python. Tests that are not in the installed package come from the
peer's source package, of which only the tests are unpacked: the peer's code is run where it is installed. Where the source
package has no tests either, they come from the peer's public repository, or from a copy of it in the folder that
`CHECKOUTS` names (`CHECKOUTS/NAME-VERSION`).
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

from registry import COMMON, Peer

ROOT = Path(__file__).resolve().parent.parent.parent
BELOW = (ROOT / "build" / "peers").resolve()
PYTHON = platform.python_version()


class NotHere(Exception):
    """The peer or its tests are not available; the message says why."""


def key_of(peer: Peer) -> str:
    return f"{peer.label}-{peer.version}"


def environment(peer: Peer) -> Path:
    """The interpreter of the peer's environment, made and filled where that is still to do."""
    folder = BELOW / f"python-{PYTHON}" / key_of(peer)
    python = folder / "bin" / "python"
    wanted = [f"{peer.project}=={peer.version}", *peer.wants, *COMMON]
    done = folder / "peers-installed"
    if not done.exists() or done.read_text() != "\n".join(wanted):
        shutil.rmtree(folder, ignore_errors=True)
        folder.parent.mkdir(parents=True, exist_ok=True)
        venv.create(folder, with_pip=True)
        pip(python, "install", *wanted)
        done.write_text("\n".join(wanted))
    wheels = list((Path(sys.prefix) / "wheels").glob("maniple-*.whl"))
    if len(wheels) != 1:
        raise SystemExit("there is no wheel of maniple: run this through `make peers`, which builds it")
    digest = hashlib.sha256(wheels[0].read_bytes()).hexdigest()
    ours = folder / "maniple-installed"
    if not ours.exists() or ours.read_text() != digest:
        pip(python, "install", "--force-reinstall", "--no-deps", str(wheels[0]))
        ours.write_text(digest)
    return python


def pip(python: Path, *arguments: str, where: Path | None = None) -> None:
    command = [str(python), "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments]
    answer = subprocess.run(command, cwd=where, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if answer.returncode:
        raise NotHere(f"pip {' '.join(arguments)}: {answer.stdout.strip()[-600:]}")


def tests(peer: Peer, python: Path) -> Path:
    """The folder in which the peer's tests are run."""
    if peer.place == "programs":
        return Path(__file__).resolve().parent / "programs"
    if peer.place == "installed":
        question = f"import importlib.util as u; print(u.find_spec({peer.package or peer.project!r}).origin)"
        return Path(subprocess.check_output([python, "-c", question], text=True).strip()).parent.parent
    folder = BELOW / "tests" / f"{peer.project}-{peer.tests_version or peer.version}"
    if not all((folder / name).exists() for name in peer.bring):
        shutil.rmtree(folder, ignore_errors=True)
        fresh = folder.with_name(folder.name + ".new")
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(parents=True)
        (from_source if peer.place == "source" else from_checkout)(peer, python, fresh)
        missing = [name for name in peer.bring if not (fresh / name).exists()]
        if missing:
            raise NotHere(f"the source of {folder.name} has no {', '.join(missing)}")
        fresh.rename(folder)
    return folder


def from_source(peer: Peer, python: Path, folder: Path) -> None:
    """Unpack the tests of the source package."""
    store = folder.with_name(folder.name + ".source")
    shutil.rmtree(store, ignore_errors=True)
    wanted = f"{peer.project}=={peer.tests_version or peer.version}"
    pip(python, "download", "--no-deps", "--no-binary", peer.project, "--dest", str(store), wanted)
    (archive,) = store.iterdir()
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive) as packed:
            packed.extractall(store / "whole")
    else:
        with tarfile.open(archive) as packed:
            packed.extractall(store / "whole", filter="data")
    (whole,) = (store / "whole").iterdir()
    take(peer, whole, folder)
    shutil.rmtree(store)


def from_checkout(peer: Peer, python: Path, folder: Path) -> None:
    """Take the tests out of a copy of the repository."""
    version = peer.tests_version or peer.version
    named = os.environ.get("CHECKOUTS")
    if named and (Path(named) / f"{peer.project}-{version}").is_dir():
        take(peer, Path(named) / f"{peer.project}-{version}", folder)
        return
    store = folder.with_name(folder.name + ".checkout")
    shutil.rmtree(store, ignore_errors=True)
    clone = ["git", "clone", "--quiet", "--depth", "1", "--branch", peer.tag or version, peer.repository, str(store)]
    answer = subprocess.run(clone, capture_output=True, text=True, env={**os.environ, "GIT_TERMINAL_PROMPT": "0"})
    if answer.returncode:
        raise NotHere(
            f"its tests are in its repository alone, and that cannot be reached: {answer.stderr.strip()[-300:]}. "
            f"Name a folder that has them: make peers CHECKOUTS=/folder with /folder/{peer.project}-{version} in it."
        )
    take(peer, store, folder)
    shutil.rmtree(store)


def take(peer: Peer, whole: Path, folder: Path) -> None:
    for name in peer.bring:
        source, target = whole / name, folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, symlinks=True)
        elif source.exists():
            shutil.copy(source, target)
