"""Uses each kind of object once, under `python -bb`: a comparison of bytes with str raises an error.

Arguments: package, start method.
"""

from __future__ import annotations

import importlib
import sys
import threading
from typing import Any


def put(queue: Any, lock: Any, item: Any) -> None:
    with lock:
        queue.put(item)


def twice(item: Any) -> Any:
    return item + item


def main() -> None:
    package, method = sys.argv[1:]
    mp = importlib.import_module(package)
    ctx = mp.get_context(method)
    connection = importlib.import_module(f"{package}.connection")
    shared_memory = importlib.import_module(f"{package}.shared_memory")
    for queue in (ctx.Queue(), ctx.SimpleQueue(), ctx.JoinableQueue()):
        process = ctx.Process(target=put, args=(queue, ctx.Lock(), ("text", b"bytes")))
        process.start()
        assert queue.get() == ("text", b"bytes")
        process.join()
    with ctx.Pool(2) as pool:
        assert pool.map(twice, ["a", b"b", 3], 1) == ["aa", b"bb", 6]
        assert list(pool.imap(twice, ["a", b"b"])) == ["aa", b"bb"]
    with ctx.Manager() as manager:
        shared = manager.dict(a=b"b")
        shared["c"] = "d"
        assert shared.copy() == {"a": b"b", "c": "d"}
    for key in (None, b"key"):
        for family in ("AF_UNIX", "AF_INET"):
            with connection.Listener(family=family, authkey=key) as listener:
                there: list[Any] = []

                def visit(listener: Any = listener, key: Any = key, there: list[Any] = there) -> None:
                    there.append(connection.Client(listener.address, authkey=key))

                thread = threading.Thread(target=visit)
                thread.start()
                with listener.accept() as here:
                    thread.join()
                    here.send(b"hello")
                    assert there[0].recv() == b"hello"
                there[0].close()
    items = shared_memory.ShareableList([1, 2.5, "text", b"bytes", None, True])
    items[2] = "other"
    assert list(items) == [1, 2.5, "other", b"bytes", None, True]
    items.shm.close()
    items.shm.unlink()
    print("ok")


if __name__ == "__main__":
    main()
