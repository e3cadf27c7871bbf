"""NumPy's arrays, which the package reads without NumPy's pickling: they arrive as after a pickle."""

from __future__ import annotations

import copyreg
import pickle
import random
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from typing import Any

import maniple
import maniple.reduction
import numpy as np
import pytest

SEEDS = range(6)
ARRAYS_OF_A_SEED = 60

KINDS = "? b B h H i I l L q Q e f d g F D G >f8 <u2 >i4 U3 S2 M8[ns] m8[s] O V4".split()


def same(value: Any) -> Any:
    return value


def ends(array: Any) -> tuple[Any, ...]:
    return array.shape, str(array.dtype), array.ravel()[:1].tolist(), array.ravel()[-1:].tolist()


def keep_changed(array: Any) -> Any:
    array += 1
    return array


class Marked(np.ndarray):
    """A class of the program."""


def described(value: Any) -> Any:
    """Return the observable state of an array, or of a value with arrays in it."""
    if isinstance(value, np.ndarray):
        content = value.tolist() if value.dtype.hasobject else value.tobytes()
        flags = value.flags.writeable, value.flags.c_contiguous, value.flags.f_contiguous, value.flags.aligned
        return type(value), value.dtype, value.dtype.metadata, value.shape, flags, content
    if isinstance(value, list | tuple):
        return type(value), [described(part) for part in value]
    if isinstance(value, dict):
        return [(key, described(part)) for key, part in value.items()]
    return type(value), value


class Maker:
    """Makes random arrays."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def array(self) -> Any:
        choice = self.random.choice
        shape = tuple(choice((0, 1, 2, 3, 7)) for _ in range(choice((0, 1, 1, 1, 2, 3, 5))))
        if self.random.random() < 0.3:
            shape = (choice((2_040, 2_049, 8_191, 8_193, 30_000, 150_000)),)
        kind = choice(KINDS)
        count = int(np.prod(shape, dtype=np.int64))
        numbers = np.arange(count) % 251
        array: Any = np.array([None, "x", 3] * (count // 3 + 1), dtype=object)[:count] if kind == "O" else None
        if array is None:
            array = numbers.astype("i8").view("V8").astype("V4") if kind == "V4" else numbers.astype("i8").astype(kind)
        array = array.reshape(shape)
        turn = self.random.randrange(10)
        if turn == 0:
            array = array.T
        elif turn == 1:
            array = array[::2] if array.ndim else array
        elif turn == 2:
            array = np.asfortranarray(array)
        elif turn == 3:
            array.flags.writeable = False
        elif turn == 4:
            array = array.view(Marked)
        elif turn == 5 and array.dtype.kind == "f" and array.dtype.isnative:
            array = array.astype(np.dtype(array.dtype, metadata={"unit": "m"}))
        elif turn == 6 and array.ndim == 1 and array.dtype.itemsize > 1 and array.size > 1:
            # Unaligned numbers.
            array = np.frombuffer(bytearray(b"\0" + array.tobytes()), array.dtype, offset=1) if kind != "O" else array
        return array

    def value(self) -> Any:
        array = self.array()
        return self.random.choice((array, array, (array, 1), [array, array], {"a": array, "b": (array, self.array())}))


@pytest.fixture(scope="module")
def pool() -> Iterator[Any]:
    with maniple.get_context("fork").Pool(2) as pool:
        yield pool


def over_a_pipe(value: Any) -> Any:
    near, far = maniple.Pipe()
    with near, far, maniple.pool.ThreadPool(1) as thread:
        sent = thread.apply_async(near.send, (value,))
        got = far.recv()
        sent.get()
    return got


def as_bytes_of_a_pipe(value: Any) -> Any:
    near, far = maniple.Pipe()
    with near, far, maniple.pool.ThreadPool(1) as thread:
        sent = thread.apply_async(near.send, (value,))
        got = far.recv_bytes()
        sent.get()
    return pickle.loads(got)


def through_a_queue(value: Any) -> Any:
    queue = maniple.Queue()
    queue.put(value)
    return queue.get()


WAYS: list[Callable[[Any], Any]] = [over_a_pipe, as_bytes_of_a_pipe, through_a_queue]


def unequal(got: Any, sent: Any) -> bool:
    return bool(described(got) != described(sent))


@pytest.mark.parametrize("seed", SEEDS)
def test_arrays_arrive_as_pickle_has_them(pool: Any, seed: int) -> None:
    maker = Maker(seed)
    values = [maker.value() for _ in range(ARRAYS_OF_A_SEED)]
    there_and_back = pool.map(same, values, 7)
    for value, got in zip(values, there_and_back):
        # Both protocols count: the later one keeps the byte order and, for kinds that pickle handles, a read-only flag.
        wanted = [pickle.loads(pickle.dumps(value, protocol)) for protocol in (4, 5)]
        assert not all(unequal(got, one) for one in wanted), (seed, got, value)
        for way in WAYS:
            got = way(value)
            assert not all(unequal(got, one) for one in wanted), (way, got, value)


def test_an_array_sent_twice_arrives_as_one_object(pool: Any) -> None:
    small, large = np.arange(5.0), np.arange(40_000.0)
    value = [small, (small, large), {"small": small, "large": large}]
    for got in (pool.apply(same, (value,)), *(way(value) for way in WAYS)):
        assert got[0] is got[1][0] is got[2]["small"]
        assert got[1][1] is got[2]["large"]
        assert not unequal(got, value)


SINGLE = [
    *(np.dtype(kind).type(3) for kind in "? b B h H i I l L q Q e f d g F D G".split()),
    *(np.float64("nan"), np.float64(-0.0), np.int64(-1), np.datetime64("2020-01-01"), np.str_("x"), np.bytes_(b"x")),
]


@pytest.mark.parametrize("value", SINGLE, ids=lambda value: f"{type(value).__name__}-{value}")
def test_single_numbers_arrive_as_pickle_has_them(pool: Any, value: Any) -> None:
    wanted = pickle.loads(pickle.dumps(value))
    twice = [value, (value, np.arange(3.0)), value]
    for way in (lambda sent: pool.apply(same, (sent,)), *WAYS):
        got = way(value)
        assert (type(got), repr(got)) == (type(wanted), repr(wanted))
        got = way(twice)
        assert got[0] is got[2] is got[1][0]
        assert repr(got) == repr(twice)


def test_a_change_to_a_received_array_changes_nothing_else(pool: Any) -> None:
    for length in (3, 3_000, 30_000, 300_000):
        array = np.zeros(length)
        changed = pool.map(keep_changed, [array] * 3, 1)
        assert [one.sum() for one in changed] == [length] * 3
        assert array.sum() == 0
        for way in WAYS:
            got = way(array)
            got += 1
            assert (got.sum(), array.sum()) == (length, 0)


def test_a_read_only_array_arrives_writable(pool: Any) -> None:
    for length in (3, 3_000, 30_000, 300_000):
        array = np.zeros(length)
        array.flags.writeable = False
        assert pool.apply(keep_changed, (array,)).sum() == length
        for way in WAYS:
            assert keep_changed(way(array)).sum() == length


def test_arrays_keep_fortran_order(pool: Any) -> None:
    for rows in (2, 200, 20_000):
        array = np.asfortranarray(np.arange(rows * 3.0).reshape(rows, 3))
        for got in (pool.apply(same, (array,)), *(way(array) for way in WAYS)):
            assert got.flags.f_contiguous and not got.flags.c_contiguous and got.flags.writeable
            assert (got == array).all()


def scattered() -> Iterator[Any]:
    """Yield arrays whose numbers are not contiguous."""
    for kind in ("B", "h", "f", "d", "D", "G"):
        for edge in (7, 60):
            block = np.arange(edge**3).astype(kind).reshape(edge, edge, edge)
            yield from (block[1:-1, 2:-2, 3:-3], block[::-1], block[:, :, ::-1], block[::2, ::3, ::2], block[:, 1])
            yield from (block.transpose(order) for order in ((2, 0, 1), (1, 0, 2), (0, 2, 1)))
            yield from (block[:, :, :1], block[:1, ::2], block[3, :, 4], block[0, 0, ::-2], block.diagonal())
            yield np.broadcast_to(block[0], (3, edge, edge))
            yield np.broadcast_to(block[0, 0, 0], (edge, edge))
            yield np.lib.stride_tricks.sliding_window_view(block[0, 0], 3)
            yield block[:, :0]


def test_strided_arrays_arrive_equal(pool: Any) -> None:
    arrays = list(scattered())
    for array, got in zip(arrays, pool.map(same, arrays, 5)):
        for one in (got, *(way(array) for way in WAYS)):
            assert (one.dtype, one.shape, one.flags.writeable) == (array.dtype, array.shape, True)
            assert one.tobytes() == array.tobytes()


def test_small_arrays_own_their_memory(pool: Any) -> None:
    for got in (pool.apply(same, (np.arange(10.0),)), *(way(np.arange(10.0)) for way in WAYS)):
        got.resize(20, refcheck=False)
        assert got.shape == (20,)


def test_more_large_arrays_than_a_message_carries_arrive(pool: Any) -> None:
    arrays = [np.full(2_100 + index, index) for index in range(300)]
    got = pool.apply(same, (arrays,))
    assert not unequal(got, arrays)
    assert not unequal(pool.map(same, arrays, 300), arrays)
    assert not unequal(through_a_queue(arrays), arrays)
    assert not unequal(over_a_pipe(arrays), arrays)


def reduced(array: Any) -> Any:
    return np.array, (["reduced"],)


@pytest.mark.parametrize("where", ["copyreg", "ForkingPickler"])
def test_a_programs_reducer_is_called(where: str) -> None:
    tables: dict[str, dict[Any, Any]] = {
        "copyreg": copyreg.dispatch_table,
        "ForkingPickler": maniple.reduction.ForkingPickler._extra_reducers,
    }
    array = np.arange(3)
    assert over_a_pipe(array).tolist() == [0, 1, 2]
    tables[where][np.ndarray] = reduced
    try:
        with maniple.get_context("fork").Pool(1) as pool:
            assert pool.apply(same, (array,)).tolist() == ["reduced"]
        for way in WAYS:
            assert way(array).tolist() == ["reduced"]
    finally:
        del tables[where][np.ndarray]
    for way in WAYS:
        assert way(array).tolist() == [0, 1, 2]


def test_a_reducer_for_a_single_number_is_called() -> None:
    number = np.float64(1.5)
    assert over_a_pipe(number) == 1.5
    copyreg.pickle(np.float64, lambda _: (str, ("reduced",)))  # type: ignore[arg-type]
    try:
        assert [way(number) for way in WAYS] == ["reduced"] * len(WAYS)
        assert over_a_pipe([np.float32(1), number]) == [1, "reduced"]
    finally:
        del copyreg.dispatch_table[np.float64]


def test_a_worker_without_numpy_receives_arrays() -> None:
    with maniple.get_context("spawn").Pool(1) as pool:
        assert pool.apply(len, (np.arange(5),)) == 5
        assert pool.map(ends_of_lists, [[np.arange(4.0)], [np.arange(50_000)]], 2) == [(0.0, 3.0), (0, 49_999)]


def ends_of_lists(arrays: Any) -> Any:
    return arrays[0][0].item(), arrays[0][-1].item()


def run(program: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_numpy_is_loaded_only_for_arrays() -> None:
    program = """
        import sys, maniple
        near, far = maniple.Pipe()
        near.send([1, 2.0, {"a": complex(1, 2)}])
        far.recv()
        with maniple.get_context("fork").Pool(1) as pool:
            pool.map(abs, range(5))
        print("numpy" in sys.modules)
    """
    assert run(program) == "False"


def test_the_package_ignores_another_module_called_numpy() -> None:
    program = """
        import sys, types
        sys.modules["numpy"] = module = types.ModuleType("numpy")
        class ndarray(list):
            pass
        ndarray.__module__, module.ndarray = "numpy", ndarray
        import maniple
        near, far = maniple.Pipe()
        near.send(ndarray([1, 2]))
        print(type(far.recv()) is ndarray)
        with maniple.get_context("fork").Pool(1) as pool:
            print(pool.apply(list, (ndarray([1, 2]),)))
    """
    assert run(program) == "True\n[1, 2]"


def test_the_package_refuses_an_array_of_a_wrong_size() -> None:
    decode = maniple._maniple.decode_payload
    shape = (3).to_bytes(8, "little")
    whole = b"nA\0\x01" + shape + b"b" + (24).to_bytes(4, "little") + np.arange(3.0).tobytes()
    assert decode(whole, False).tolist() == [0, 1, 2]
    for damaged in (
        whole.replace(shape, (4).to_bytes(8, "little")),
        whole.replace(shape, (2**61).to_bytes(8, "little")),
        whole.replace(b"A\0", b"A\x7f"),
        whole.replace(b"A\0", b"A\xff"),
        whole.replace(b"A\0\x01", b"A\0\x11"),
        b"n#\0\x07" + b"1234567",
        b"n#\x7f\x08" + b"12345678",
        whole[:-1],
        whole[:9],
    ):
        with pytest.raises(RuntimeError):
            decode(damaged, False)


RESIZED = """
import contextlib, sys, threading, time
import maniple as mp
import numpy as np

class Marked(np.ndarray):
    pass

def length(array):
    return len(array)

def drain(receive):
    with contextlib.suppress(EOFError):
        while True:
            receive()

def main(way, count, kind):
    array = np.zeros(count)
    if kind == "of a subclass":
        array = array.view(Marked).copy()
    ctx = mp.get_context("fork")
    queue, (near, far), (last, first) = ctx.SimpleQueue(), ctx.Pipe(), ctx.Pipe()
    with ctx.Pool(1) as pool:
        pool.apply(length, ([],))
        room = memoryview(array)
        if way in ("pipe", "bytes"):
            threading.Thread(target=drain, args=(near.recv if way == "pipe" else near.recv_bytes,), daemon=True).start()

        def put_and_get():
            queue.put(array)
            assert len(queue.get())

        if way == "into":

            def feed():
                with contextlib.suppress(OSError):
                    while True:
                        first.send_bytes(bytes(4 * count))

            threading.Thread(target=feed, daemon=True).start()

        def into():
            with contextlib.suppress(mp.BufferTooShort):
                last.recv_bytes_into(array)

        send = {
            "pool": lambda: pool.apply(length, (array,)),
            "queue": put_and_get,
            "pipe": lambda: far.send(array),
            "bytes": lambda: far.send_bytes(array),
            "into": into,
        }[way]
        over = False

        def resize():
            turn = 0
            while not over:
                turn += 1
                # Not while something refers to it: then NumPy says so.
                with contextlib.suppress(ValueError):
                    array.resize(count * 20 if turn % 2 else count // 2, refcheck=False)
                    array[:] = turn
                time.sleep(0)

        thread = threading.Thread(target=resize)
        thread.start()
        end, sent = time.monotonic() + 1.5, 0
        while time.monotonic() < end:
            with contextlib.suppress(BufferError):
                send()
            sent += 1
        over = True
        thread.join()
        assert sent
    print("sent")

if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
"""


@pytest.mark.parametrize("count", [20_000, 400_000])
@pytest.mark.parametrize(
    ("way", "kind"),
    [
        *((way, kind) for way in ("pool", "queue", "pipe") for kind in ("plain", "of a subclass")),
        ("bytes", "plain"),
        ("into", "plain"),
    ],
)
def test_resizing_an_array_during_a_send_crashes_nothing(way: str, count: int, kind: str) -> None:
    command = [sys.executable, "-c", RESIZED, way, str(count), kind]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (run.returncode, run.stdout.strip()) == (0, "sent"), run.stderr[-2000:]
