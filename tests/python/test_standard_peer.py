"""The standard package at the other end: connections and managers, with each package once on each side.

The peers are the running Python, in a process without maniple, and every interpreter that MANIPLE_PEERS names
(`make test PEERS=/path/to/python3.14`; a colon separates several).
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

PEER = Path(__file__).resolve().parent / "programs" / "standard_peer.py"
PEERS = [sys.executable, *filter(None, os.environ.get("MANIPLE_PEERS", "").split(os.pathsep))]
PATIENCE = 40

pytestmark = pytest.mark.parametrize("python", PEERS, ids=lambda path: Path(path).name)


@pytest.fixture(scope="module")
def words(mp_package: str) -> ModuleType:
    """Run the peer's own functions with this package in the place of the standard package."""
    text = PEER.read_text().replace("from multiprocessing", f"from {mp_package}")
    module = ModuleType("words")
    spec = importlib.util.spec_from_loader("words", loader=None)
    assert spec is not None
    sys.modules["words"] = module
    exec(compile(text, str(PEER), "exec"), vars(module))
    return module


@contextmanager
def peer(python: str, *arguments: object, refused: bool = False) -> Iterator[subprocess.Popen[str]]:
    """The other side, which must end with success."""
    line = [python, "-I", str(PEER), *map(str, arguments)]
    pipe = subprocess.PIPE
    with subprocess.Popen(line, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:
        watchdog = threading.Timer(PATIENCE, process.kill)
        watchdog.start()
        try:
            yield process
            out, err = process.communicate()
            assert (process.returncode, out, err) == (0, "refused\ndone\n" if refused else "done\n", "")
        finally:
            watchdog.cancel()
            process.kill()


def address_of(process: subprocess.Popen[str]) -> Any:
    assert process.stdout is not None
    return eval(process.stdout.readline())


keys = pytest.mark.parametrize("key", ["-", "some key"], ids=["no-key", "key"])
families = pytest.mark.parametrize("family", ["unix", "inet"])


def as_bytes(key: str) -> bytes | None:
    return None if key == "-" else key.encode()


@keys
@families
def test_our_client_their_listener(words: ModuleType, python: str, family: str, key: str) -> None:
    with peer(python, "listen", family, key) as process:
        with words.Client(address_of(process), authkey=as_bytes(key)) as connection:
            words.exchange(connection)


@keys
@families
def test_their_client_our_listener(words: ModuleType, python: str, family: str, key: str) -> None:
    with words.Listener(family=f"AF_{family.upper()}", authkey=as_bytes(key)) as listener:
        with peer(python, "connect", repr(listener.address), key):
            with listener.accept() as connection:
                words.echo(connection)


def test_our_client_with_a_wrong_key(words: ModuleType, python: str) -> None:
    with peer(python, "listen", "inet", "right", refused=True) as process:
        with pytest.raises(words.AuthenticationError):
            words.Client(address_of(process), authkey=b"wrong")


def test_their_client_with_a_wrong_key(words: ModuleType, python: str) -> None:
    with words.Listener(("127.0.0.1", 0), authkey=b"right") as listener:
        with peer(python, "connect", repr(listener.address), "wrong", refused=True):
            with pytest.raises(words.AuthenticationError):
                listener.accept()


@pytest.mark.parametrize("what", ["store", "types"])
def test_our_client_of_their_manager(
    words: ModuleType, monkeypatch: pytest.MonkeyPatch, python: str, what: str
) -> None:
    kind, serving, use = {
        "store": (words.Shared, "serve", words.use_store),
        "types": (words.SyncManager, "serve-types", words.use_types),
    }[what]
    monkeypatch.setattr(words.current_process(), "authkey", b"some key")
    with peer(python, serving, "some key") as process:
        manager = kind(address_of(process), authkey=b"some key")
        manager.connect()
        use(manager)


@pytest.mark.parametrize("what", ["store", "types"])
def test_their_client_of_our_manager(
    words: ModuleType, monkeypatch: pytest.MonkeyPatch, python: str, what: str
) -> None:
    monkeypatch.setattr(words.current_process(), "authkey", b"some key")
    kind, use = {"store": (words.Shared, "use"), "types": (words.SyncManager, "use-types")}[what]
    server = kind(("127.0.0.1", 0), authkey=b"some key").get_server()
    threading.Thread(target=serve, args=(server,), daemon=True).start()
    try:
        with peer(python, use, repr(server.address), "some key"):
            pass
    finally:
        server.stop_event.set()


def serve(server: Any) -> None:
    try:
        server.serve_forever()
    except SystemExit:
        pass


def test_their_client_of_our_manager_with_a_wrong_key(words: ModuleType, python: str) -> None:
    server = words.Shared(("127.0.0.1", 0), authkey=b"right").get_server()
    threading.Thread(target=serve, args=(server,), daemon=True).start()
    try:
        with peer(python, "use", repr(server.address), "wrong", refused=True):
            pass
    finally:
        server.stop_event.set()
