"""A worker that writes nonsense over all of its shared memory: its pool answers, recovers or fails with an error.

MANIPLE_SEEDS=500 python -m pytest tests/python/test_hostile_workers.py    a longer run
MANIPLE_FIRST=120 MANIPLE_SEEDS=1 ...                                       one seed
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import random
import socket
import stat
import struct
import sys
import time
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
from pools import METHODS, end_pool, make_pool, pid, square, wait_for_file

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks for the memory in /proc")
NewPool = Callable[..., Any]
processes_only = pytest.mark.parametrize("kind", METHODS, indirect=True)
own_engine = pytest.mark.better_than_standard("it has no check of what workers write")

FIRST = int(os.environ.get("MANIPLE_FIRST", "0"))
SEEDS = int(os.environ.get("MANIPLE_SEEDS", "10"))
ANSWERS = 60
PATIENCE = 25.0


def _shared() -> list[tuple[int, int]]:
    """Yield the address and length of each piece of memory that this process shares with others."""
    pieces = []
    with open("/proc/self/maps") as maps:
        for line in maps:
            span, how, *_ = line.split()
            if how == "rw-s" and "memfd:" in line:
                first, end = (int(part, 16) for part in span.split("-"))
                pieces.append((first, end - first))
    return pieces


def _sockets() -> list[int]:
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            if stat.S_ISSOCK(os.fstat(int(name)).st_mode):
                found.append(int(name))
        except OSError:
            pass
    return found


def _scribble(dice: random.Random) -> None:
    """Do one thing that no healthy worker does."""
    at, length = dice.choice(_shared())
    skip = struct.pack("<IIHHIQ", 0, dice.choice((0, 8, 1 << 18)), 0xFFFF, 0, 0, 0)
    match dice.randrange(7):
        case 0:
            ctypes.memmove(at, dice.randbytes(length), length)
        case 1:
            ctypes.memset(at, 0, length)
        case 2:
            ctypes.memmove(at, (skip * (length // len(skip) + 1))[:length], length)
        case 3 | 4:
            # Words of the protocol: counters, slots, bells.
            for _ in range(dice.randrange(1, 40)):
                word = dice.choice((0, 1, 1 << 64 - 1, dice.randrange(1 << 20) * 8, dice.getrandbits(64)))
                ctypes.memmove(at + dice.randrange(min(length, 4096) // 8) * 8, struct.pack("<Q", word), 8)
        case 5:
            # The content of another place.
            size = dice.randrange(8, 1 << 14)
            start, end = (dice.randrange((length - size) // 8 + 1) * 8 if length > size else 0 for _ in range(2))
            ctypes.memmove(at + start, ctypes.string_at(at + end, min(size, length)), min(size, length))
        case _:
            for fd in _sockets():
                with socket.socket(fileno=os.dup(fd)) as line:
                    for _ in range(dice.randrange(1, 30)):
                        try:
                            note = dice.choice((dice.randbytes(8), b"abc", struct.pack("<Q", dice.randrange(4) << 32)))
                            socket.send_fds(line, [note], [0] * dice.randrange(4), socket.MSG_DONTWAIT)
                        except OSError:
                            pass


def _go_mad(seed: int, mark: str) -> int:
    dice = random.Random(seed)
    with open(mark, "x"):
        pass
    for _ in range(dice.randrange(1, 4)):
        _scribble(dice)
        time.sleep(dice.choice((0, 0.01)))
    if dice.random() < 0.5:
        os._exit(3)
    time.sleep(1000)
    return seed


def _slow_square(number: int) -> int:
    time.sleep(0.002)
    return square(number)


@own_engine
@pytest.mark.timeout(60 + 30 * SEEDS)
@pytest.mark.parametrize("method", METHODS)
def test_a_worker_writes_nonsense(mp: ModuleType, method: str, tmp_path: Any) -> None:
    seeds = range(FIRST, FIRST + (SEEDS if method == "fork" else max(SEEDS // 5, 1)))
    wrong = []
    for seed in seeds:
        pool = make_pool(mp, method, 3)
        try:
            mark = str(tmp_path / f"{method}-{seed}")
            pool.map(pid, range(12), 1)
            pool.apply_async(_go_mad, (seed, mark))
            assert wait_for_file(mark)
            results = [pool.apply_async(_slow_square, (number,)) for number in range(ANSWERS)]
            lost = 0
            for number, result in enumerate(results):
                try:
                    value = result.get(PATIENCE)
                except mp.TimeoutError:
                    wrong.append(f"seed {seed}: item {number} is never answered")
                    break
                except mp.pool.WorkerLostError:
                    lost += 1
                else:
                    if value != square(number):
                        wrong.append(f"seed {seed}: item {number} is answered {value!r}")
            if lost > 10:
                wrong.append(f"seed {seed}: {lost} of {ANSWERS} tasks are lost")
        finally:
            end_pool(pool)
    assert not wrong, "\n".join(wrong)


class _Meddler:
    """Changes the number of results in its chunk while it is pickled."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Meddler) and other.number == self.number

    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> Any:
        for chunk in gc.get_referrers(self):
            if type(chunk) is list and len(chunk) == 2 and self.number == 0:
                del chunk[1]
            elif type(chunk) is list and len(chunk) == 2 and self.number == 4:
                chunk.append(chunk[1])
        return _Meddler, (self.number,)


@own_engine
@pytest.mark.parametrize("kind", ["fork"], indirect=True)
@pytest.mark.parametrize("call", ["map", "imap"])
def test_a_chunk_has_a_wrong_number_of_results(mp: ModuleType, new_pool: NewPool, call: str) -> None:
    """No value becomes the result of another item, although the total number is right."""
    pool = new_pool(2)
    with pytest.raises(mp.pool.ResultDecodeError, match="more or fewer results than it was sent items"):
        list(getattr(pool, call)(_Meddler, range(8), 2))
    assert pool.map(square, range(4), 2) == [0, 1, 4, 9]


def _fork_and_return(number: int) -> int:
    if number == 3 and os.fork() == 0:
        time.sleep(0.05)
    return number


@processes_only
def test_a_forked_child_of_a_task_returns(new_pool: NewPool, capfd: pytest.CaptureFixture[str]) -> None:
    """Only the worker answers and continues; its child reports the error, and ends."""
    pool = new_pool(2)
    told = ""
    for times in (1, 2, 3):
        assert pool.map_async(_fork_and_return, range(8), 1).get(PATIENCE) == list(range(8))
        assert pool.map_async(square, range(8), 1).get(PATIENCE) == [n * n for n in range(8)]
        end = time.monotonic() + PATIENCE
        while told.count("only the parent can answer") < times:
            assert time.monotonic() < end
            time.sleep(0.01)
            told += capfd.readouterr().err


def _shut(how: int) -> None:
    for number in _sockets():
        with socket.socket(fileno=os.dup(number)) as end:
            try:
                end.shutdown(how)
            except OSError:
                pass


def _send_back(size: int) -> bytes:
    return b"x" * size


@own_engine
@processes_only
@pytest.mark.parametrize("how", [socket.SHUT_RD, socket.SHUT_WR, socket.SHUT_RDWR])
def test_a_worker_that_shuts_its_connection_down(new_pool: NewPool, mp: ModuleType, how: int) -> None:
    pool = new_pool(1)
    try:
        pool.apply_async(_shut, (how,)).get(PATIENCE)
    except mp.WorkerLostError:
        pass
    large = 3_000_000
    # Each call has a result, or the error of its worker; the worker's successor has a whole connection.
    for function, argument, wanted in ((_send_back, large, large), (len, b"x" * large, large)):
        try:
            got = pool.apply_async(function, (argument,)).get(PATIENCE)
        except mp.WorkerLostError:
            continue
        assert got == wanted or len(got) == wanted
    assert len(pool.apply_async(_send_back, (large,)).get(PATIENCE)) == large
    assert pool.apply_async(len, (b"x" * large,)).get(PATIENCE) == large


def _write_everywhere(_: object) -> None:
    for name in os.listdir("/proc/self/fd"):
        try:
            number = int(name)
            if number > 2 and stat.S_ISFIFO(os.fstat(number).st_mode):
                os.set_blocking(number, False)
                os.write(number, b"\xff" * 64)
        except OSError:
            pass


@own_engine
@processes_only
def test_a_worker_that_writes_into_its_pipes(new_pool: NewPool, mp: ModuleType) -> None:
    pool = new_pool(2)
    with contextlib.suppress(mp.WorkerLostError):  # its lifeline is among the pipes
        pool.apply_async(_write_everywhere, (0,)).get(PATIENCE)
    assert pool.map_async(square, range(30), 1).get(PATIENCE) == [number * number for number in range(30)]
    end_pool(pool)
    # The fork server still serves.
    assert new_pool(1).apply_async(square, (3,)).get(PATIENCE) == 9


@own_engine
def test_an_exit_code_that_cannot_be(mp: ModuleType) -> None:
    from maniple import forkserver, popen_forkserver

    for number in (2**40, -(2**40), 256, -129):
        read_end, write_end = os.pipe()
        os.write(write_end, forkserver.SIGNED_STRUCT.pack(number))
        popen = popen_forkserver.Popen.__new__(popen_forkserver.Popen)
        popen._answer, popen.sentinel = [], read_end
        try:
            assert popen._read_code() == 255
        finally:
            os.close(read_end)
            os.close(write_end)
