"""The other side of `test_standard_peer.py`: knows only the standard package.

    python standard_peer.py listen unix|inet KEY        echo what one client sends, as objects
    python standard_peer.py connect ADDRESS KEY         send objects and bytes, see that they come back
    python standard_peer.py serve KEY                   a manager, until its input ends
    python standard_peer.py use ADDRESS KEY             a client of a manager

KEY is `-` for none. What listens prints its address first.
"""

import os
import sys
import threading
from multiprocessing import AuthenticationError, current_process
from multiprocessing.connection import Client, Listener
from multiprocessing.managers import BaseManager, SyncManager

OBJECTS = [None, 7, "text \u00e9", b"", {"deep": [1.5, (2, 3)]}, "x" * 70_000, list(range(1000))]
BYTES = [b"", b"1", bytes(16_383), bytes(16_384), bytes(16_385), bytes(5_000_000)]


class Store:
    def __init__(self):
        self._content = {}

    def put(self, name, value):
        self._content[name] = value

    def take(self, name):
        return self._content.pop(name)


class Shared(BaseManager):
    """What both sides agree upon."""


def exchange(connection):
    """Everything that one side sends and receives."""
    for item in OBJECTS:
        connection.send(item)
        assert connection.recv() == item
    for data in BYTES:
        connection.send_bytes(data)
        assert connection.recv_bytes() == data
    buffer = bytearray(10)
    connection.send_bytes(b"0123456789", 2, 5)
    assert connection.recv_bytes_into(buffer, 1) == 5 and buffer == b"\x0023456\0\0\0\0"


def echo(connection):
    for _ in OBJECTS:
        connection.send(connection.recv())
    for _ in range(len(BYTES) + 1):
        connection.send_bytes(connection.recv_bytes())


def use_store(manager):
    """What a client does with a manager of `Store`."""
    store = manager.Store()
    store.put("a", [1, 2])
    assert store.take("a") == [1, 2]
    try:
        store.take("a")
    except KeyError as error:
        assert error.args == ("a",)
    else:
        raise AssertionError("no KeyError")
    assert sorted(store._exposed_ if store._exposed_ else ["put", "take"]) == ["put", "take"]


def use_types(manager):
    """What a client does with a SyncManager."""
    table, items, space = manager.dict(a=1), manager.list([3, 1, 2]), manager.Namespace()
    table["b"] = {"c": 2}
    assert table.copy() == {"a": 1, "b": {"c": 2}} and sorted(table) == ["a", "b"]
    items.sort()
    items += [9]
    assert items[:] == [1, 2, 3, 9] and list(items) == [1, 2, 3, 9]
    space.word = "said"
    assert space.word == "said"
    queue, lock, event, value = manager.Queue(), manager.Lock(), manager.Event(), manager.Value("i", 3)
    queue.put(b"bytes")
    assert queue.get(timeout=20) == b"bytes" and queue.empty()
    with lock:
        assert not lock.acquire(False)
    event.set()
    assert event.wait(20)
    value.value += 1
    assert value.value == 4
    nested = manager.list([table])
    assert nested[0]["a"] == 1
    pool = manager.Pool(1)
    assert pool.apply_async(abs, (-3,)).get(timeout=30) == 3
    pool.terminate()


def main(what, *details):
    key = None if details[-1] == "-" else details[-1].encode()
    if key is not None:
        current_process().authkey = key  # for proxies that come inside of other objects
    if what == "listen":
        with Listener(family={"unix": "AF_UNIX", "inet": "AF_INET"}[details[0]], authkey=key) as listener:
            print(repr(listener.address), flush=True)
            try:
                with listener.accept() as connection:
                    echo(connection)
            except AuthenticationError:
                print("refused", flush=True)
    elif what == "connect":
        try:
            with Client(eval(details[0]), authkey=key) as connection:
                exchange(connection)
        except AuthenticationError:
            print("refused", flush=True)
    elif what in ("serve", "serve-types"):
        kind = SyncManager if what == "serve-types" else Shared
        server = kind(("127.0.0.1", 0), authkey=key).get_server()
        print(repr(server.address), flush=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        os.read(0, 1)  # not sys.stdin: a forked worker would wait for its lock
    else:
        kind = SyncManager if what == "use-types" else Shared
        manager = kind(eval(details[0]), authkey=key)
        try:
            manager.connect()
            (use_types if kind is SyncManager else use_store)(manager)
        except AuthenticationError:
            print("refused", flush=True)


Shared.register("Store", Store)

if __name__ == "__main__":
    main(*sys.argv[1:])
    print("done", flush=True)
