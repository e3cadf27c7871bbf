"""Values pass through a pool: they return equal, of the same type, and still writable."""

from __future__ import annotations

import collections
import dataclasses
import datetime
import decimal
import enum
import fractions
import pathlib
import random
import string
import struct
import uuid
from typing import Any

import numpy
import pytest
from pools import identity

KIB, MIB = 1 << 10, 1 << 20
# Sizes around every power of two at which the transfer may change: inline or in shared memory, one or several writes, a
# frame's length field, a full ring.
EDGES = sorted({max(0, (1 << power) + step) for power in range(24) for step in (-1, 0, 1)})


def through(pool: Any, value: Any) -> Any:
    return pool.apply(identity, (value,))


def same(one: Any, two: Any) -> bool:
    """Return whether values and the types of all their parts are equal; NaN equals NaN, -0.0 differs from 0.0."""
    if type(one) is not type(two):
        return False
    if isinstance(one, float):
        return struct.pack("d", one) == struct.pack("d", two)
    if isinstance(one, complex):
        return same(one.real, two.real) and same(one.imag, two.imag)
    if isinstance(one, (list, tuple)):
        return len(one) == len(two) and all(map(same, one, two))
    if isinstance(one, dict):
        return same(list(one.items()), list(two.items()))
    if isinstance(one, numpy.ndarray):
        return one.dtype == two.dtype and one.shape == two.shape and numpy.array_equal(one, two, equal_nan=True)
    return bool(one == two)


# -- buffers


@pytest.mark.parametrize("kind", [bytes, bytearray])
def test_bytes_around_powers_of_two(shared_pool: Any, kind: type) -> None:
    for size in EDGES:
        value = kind(pattern(size))
        got = through(shared_pool, value)
        assert type(got) is kind and got == value, f"{kind.__name__} of {size} bytes"


def test_strings_around_powers_of_two(shared_pool: Any) -> None:
    for size in EDGES:
        for letter in "aé€😀" if size < 70_000 else "a":
            value = letter * size
            assert through(shared_pool, value) == value, f"{size} times {letter}"


def pattern(size: int) -> bytes:
    """Return `size` bytes that encode their position, so that a shifted copy differs."""
    return numpy.arange((size + 7) // 8, dtype="<u8").tobytes()[:size]


ARRAY_SIZES = [0, 1, 64 * KIB - 1, 64 * KIB, 64 * KIB + 1, MIB, 32 * MIB]


@pytest.mark.parametrize("size", ARRAY_SIZES)
def test_arrays_are_equal_and_writable(shared_pool: Any, shared_kind: str, size: int) -> None:
    value = numpy.frombuffer(pattern(size), dtype="u1").copy()
    untouched = value.copy()
    for got in (through(shared_pool, value), *shared_pool.map(identity, [value, value], chunksize=1)):
        assert same(got, untouched)
        assert got.flags.writeable
        if shared_kind == "thread":
            assert got is value
            continue
        got[:] = 7  # which must change neither the original nor another copy
        assert same(value, untouched)


@pytest.mark.parametrize("size", ARRAY_SIZES)
def test_arrays_are_writable_in_the_worker(shared_pool: Any, shared_kind: str, size: int) -> None:
    value = numpy.zeros(size, "u1")
    got = shared_pool.apply(add_one_in_place, (value,))
    assert (got == 1).all() and got.shape == value.shape
    if shared_kind != "thread":
        assert not value.any(), "the caller's array is its own"


def add_one_in_place(array: numpy.ndarray) -> numpy.ndarray:
    array += 1
    return array


def test_arrays_of_many_kinds(shared_pool: Any) -> None:
    base = numpy.arange(200_000, dtype="f8").reshape(400, 500)
    arrays = [
        base[::2, ::3],
        base.T,
        base[:, 7],
        base[::-1],
        numpy.asfortranarray(base),
        base[100:101],
        base[:0],
        base.astype(">f4"),
        base.astype("c16"),
        base > 5,
        numpy.array(3.5),
        numpy.array(["a", "ünï"] * 50_000),
        numpy.array([None, {"a": 1}, [2]], dtype=object),
        numpy.zeros(70_000, dtype=[("x", "i4"), ("y", "f8", 3)]),
        numpy.array(["2026-11-22"] * 20_000, dtype="datetime64[D]"),
        numpy.ma.masked_less(base, 5),
    ]
    for value, got in zip(arrays, shared_pool.map(identity, arrays, chunksize=1), strict=True):
        assert type(got) is type(value) and got.shape == value.shape
        assert got.dtype.newbyteorder("=") == value.dtype.newbyteorder("="), "the byte order is numpy's own affair"
        assert numpy.array_equal(numpy.asarray(got), numpy.asarray(value)), f"{value.dtype} {value.shape}"


def test_read_only_array_stays_equal(shared_pool: Any) -> None:
    value = numpy.arange(300_000)
    value.flags.writeable = False
    assert same(through(shared_pool, value), value)


def test_many_arrays_in_one_item(shared_pool: Any) -> None:
    value = [numpy.full(size, number, "i4") for number, size in enumerate([10, 100_000] * 150)]
    got = through(shared_pool, value)
    assert same(got, value)
    assert all(each.flags.writeable for each in got)
    got[1][:] = -1
    assert same(got[3:], value[3:]), "arrays of one item do not overlap"


@pytest.mark.parametrize("size", [10, 100_000])
def test_same_array_twice_stays_one(shared_pool: Any, size: int) -> None:
    array = numpy.arange(size)
    assert shared_pool.apply(are_one, (array, {"again": array}))
    one, two = through(shared_pool, (array, array))
    assert one is two and same(one, array)


def are_one(one: Any, holder: dict[str, Any]) -> bool:
    return one is holder["again"]


def test_arrays_outlive_the_results_that_follow(shared_pool: Any) -> None:
    """The pool does not reuse a block of memory while an array refers to it."""
    arrays = []
    for number in range(40):
        arrays.append(through(shared_pool, numpy.full(300_000, number)))
        if number % 3 == 0:
            arrays[number // 2] = arrays[number // 2][:10]  # a view keeps its block as well
    assert all((array == array[0]).all() for array in arrays)
    assert len({int(array[0]) for array in arrays}) == 40


def test_views_of_memory(shared_pool: Any) -> None:
    data = bytearray(pattern(300_000))
    got = shared_pool.map(bytes_of, [numpy.frombuffer(data, "u1"), data, bytes(data)], chunksize=1)
    assert got == [bytes(data)] * 3


def bytes_of(value: Any) -> bytes:
    return bytes(value)


def test_large_and_small_items_mixed(shared_pool: Any) -> None:
    chance = random.Random(5)
    values = [pattern(chance.choice([0, 1, 100, 5_000, 70_000, MIB])) for _ in range(120)]
    assert shared_pool.map(identity, values) == values
    assert shared_pool.map(identity, values, chunksize=7) == values
    assert list(shared_pool.imap(identity, values)) == values


def test_large_results_of_small_arguments(shared_pool: Any) -> None:
    assert [len(each) for each in shared_pool.map(bytearray, [8 * MIB, 3, 16 * MIB, 0])] == [8 * MIB, 3, 16 * MIB, 0]


def test_items_larger_than_any_buffer_do_not_deadlock(shared_pool: Any) -> None:
    """Both directions are full at the same time: each side must continue reading while it writes."""
    values = [bytes([number]) * (4 * MIB) for number in range(16)]
    assert shared_pool.map(identity, values, chunksize=1) == values


# -- other values


@dataclasses.dataclass
class Point:
    x: int
    tags: list[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True, slots=True)
class Frozen:
    name: str
    data: bytes


class Colour(enum.Enum):
    RED = "red"


Pair = collections.namedtuple("Pair", "one two")

VALUES: list[Any] = [
    None,
    True,
    False,
    Ellipsis,
    NotImplemented,
    0,
    -1,
    2**31,
    -(2**31) - 1,
    2**63,
    -(2**63) - 1,
    2**64,
    10**500,
    -(10**5000),
    0.0,
    -0.0,
    float("inf"),
    float("nan"),
    5e-324,
    1 + 2j,
    complex(float("nan"), -0.0),
    "",
    b"",
    "\0",
    "\udc80 lone \ud83d",
    "e\u0301",
    "\U0010ffff",
    string.printable,
    [],
    (),
    {},
    set(),
    frozenset(),
    (1,),
    [[[[[]]]]],
    {1: {2: {3: (4, [5])}}},
    {"b": 1, "a": 2},
    {(1, 2): {3, 4}},
    frozenset({1, "a"}),
    range(3, 99, 7),
    slice(1, None, 2),
    int,
    len,
    collections.OrderedDict(b=1, a=2),
    collections.Counter("hello"),
    collections.deque([1, 2], maxlen=3),
    collections.defaultdict(list, a=[1]),
    Pair(1, [2]),
    decimal.Decimal("1.10"),
    fractions.Fraction(1, 3),
    datetime.datetime(2026, 11, 22, tzinfo=datetime.UTC),
    datetime.timedelta(microseconds=1),
    pathlib.PurePosixPath("/a/b"),
    uuid.UUID(int=7),
    Point(3, ["a"]),
    Frozen("n", b"d"),
    Colour.RED,
    bytearray(b"x"),
    ["x" * 100] * 1000,
]


def test_values_of_many_types(shared_pool: Any) -> None:
    for value, got in zip(VALUES, shared_pool.map(identity, VALUES), strict=True):
        assert same(got, value), f"{value!r:.80} became {got!r:.80}"


def test_deep_nesting(shared_pool: Any) -> None:
    value: Any = 1
    for _ in range(200):
        value = [value, {"k": (value,)}] if _ % 50 == 0 else [value]
    assert through(shared_pool, value) == value


def test_recursive_structures(shared_pool: Any) -> None:
    loop: list[Any] = [1]
    loop.append(loop)
    got = through(shared_pool, loop)
    assert got[0] == 1 and got[1] is got
    table: dict[str, Any] = {}
    table["self"] = (table, [table])
    got = through(shared_pool, table)
    assert got["self"][0] is got and got["self"][1][0] is got


def test_shared_parts_of_one_item_stay_shared(shared_pool: Any) -> None:
    part = [1]
    one, two = through(shared_pool, (part, part))
    assert one is two


# -- any value


def anything(chance: random.Random, depth: int) -> Any:
    """Return random nested plain values, biased towards the limits of their encodings."""
    if depth and chance.random() < 0.55:
        parts = [anything(chance, depth - 1) for _ in range(chance.choice([0, 1, 1, 2, 3, 5, 20]))]
        shape = chance.randrange(5)
        if shape == 0:
            return parts
        if shape == 1:
            return tuple(parts)
        if shape == 2:
            return {scalar(chance): part for part in parts}
        if shape == 3:
            return [parts] * 2
        return {scalar(chance) for _ in parts}
    return chance.choice([scalar, bulk])(chance)


def scalar(chance: random.Random) -> Any:
    kind = chance.randrange(7)
    if kind == 0:
        return chance.choice([None, True, False])
    if kind == 1:
        return chance.choice([-1, 1]) * (1 << chance.randrange(0, 200)) + chance.randrange(-2, 3)
    if kind == 2:
        return chance.choice(
            [0.0, -0.0, 1.5, float("inf"), -float("inf"), chance.uniform(-1, 1) * 10 ** chance.randrange(-300, 300)]
        )
    if kind == 3:
        return "".join(
            chr(chance.choice([0, 65, 0x7F, 0x80, 0x7FF, 0xD800, 0xDFFF, 0xFFFF, 0x10FFFF]))
            for _ in range(chance.randrange(6))
        )
    if kind == 4:
        return chance.randbytes(chance.choice([0, 1, 7, 255, 256]))
    if kind == 5:
        return complex(chance.random(), -0.0)
    return chance.randrange(-300, 300)


def bulk(chance: random.Random) -> Any:
    size = chance.choice([0, 1, 255, 256, 4095, 4096, 65_535, 65_536, 65_537, 140_000])
    kind = chance.randrange(4)
    if kind == 0:
        return bytearray(pattern(size))
    if kind == 1:
        return pattern(size)
    if kind == 2:
        return "é" * (size // 2)
    return numpy.frombuffer(pattern(size // 8 * 8), "<u8").copy()


# Fixed seeds for comparable runs, and a fresh seed for new values in every run.
@pytest.mark.parametrize("seed", [1, 2, 3, pytest.param(None, id="fresh")])
def test_any_value_comes_back_the_same(shared_pool: Any, seed: int | None) -> None:
    seed = random.SystemRandom().randrange(1 << 32) if seed is None else seed
    chance = random.Random(seed)
    values = [anything(chance, depth=4) for _ in range(150)]
    # Each value alone, so that the test can name a wrong value; then with neighbours in its chunk.
    for number, (value, got) in enumerate(zip(values, shared_pool.imap(identity, values), strict=True)):
        assert same(got, value), f"seed {seed}, value {number}: {value!r:.200} became {got!r:.200}"
    for number, (value, got) in enumerate(zip(values, shared_pool.map(identity, values, chunksize=13), strict=True)):
        assert same(got, value), f"seed {seed}, value {number} in a chunk: {value!r:.200} became {got!r:.200}"
