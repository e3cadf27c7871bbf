"""Values of the most common types, which the package writes without pickle: they arrive as after a pickle."""

from __future__ import annotations

import gc
import math
import pickle
import random
from collections.abc import Iterator
from typing import Any

import maniple
import pytest

SEEDS = range(12)
VALUES_OF_A_SEED = 120

LEAVES: list[Any] = [
    *(None, True, False, 0.0, -0.0, math.inf, math.nan, 1e300),
    *(sign * 2**bits + offset for bits in (0, 7, 8, 15, 16, 31, 32, 63, 64) for sign in (1, -1) for offset in (-1, 0)),
    *(
        "",
        "x",
        "ab",
        "key",
        "a text that is longer than thirty-two bytes, and so is compared by object",
        "é",
        "日本" * 20,
    ),
    *(b"", b"x", b"ab", b"key", b"yy" * 50, b"z" * 20_000),
    # Not plain: pickle writes them.
    *("\ud800", 3 + 4j, frozenset((1,)), bytearray(b"q"), 10**30),
]


def same(value: Any) -> Any:
    return value


def together(*values: Any) -> tuple[Any, ...]:
    return values


def shape(value: Any, seen: dict[int, int] | None = None) -> Any:
    """Return the parts of a value, and which of its lists and dicts are the same object."""
    seen = {} if seen is None else seen
    if not isinstance(value, list | dict | tuple):
        return type(value).__name__, repr(value)
    if id(value) in seen:
        return "again", seen[id(value)]
    if not isinstance(value, tuple):
        seen[id(value)] = len(seen)
    parts = [part for pair in value.items() for part in pair] if isinstance(value, dict) else value
    return type(value).__name__, [shape(part, seen) for part in parts]


class Maker:
    """Makes random values that refer to parts of each other."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.made: list[Any] = []

    def items(self) -> list[Any]:
        self.made = []
        items = [self.value(4) for _ in range(self.random.choice((1, 1, 2, 5, 20)))]
        if self.random.random() < 0.1:
            items.append(within_itself := [1])
            within_itself.append(within_itself)  # type: ignore[arg-type]
        if self.random.random() < 0.1:
            items.append(pair := ([],))
            pair[0].append(pair)
        return items

    def value(self, depth: int) -> Any:
        kind = self.random.randrange(12) if depth else 11
        if kind == 0 and self.made:
            return self.random.choice(self.made)
        if kind in (1, 2):
            made: Any = []
            self.made.append(made)
            made.extend(self.numbers() if self.random.random() < 0.4 else self.values(depth, (0, 1, 2, 9, 12)))
            return made
        if kind in (3, 4):
            made = {}
            self.made.append(made)
            keys = ("a", "key", 1, 2.5, None, b"key", ("t", 1), "é" * self.random.randrange(40))
            made.update(
                (self.random.choice(keys), self.value(depth - 1)) for _ in range(self.random.choice((0, 1, 3, 9)))
            )
            return made
        if kind in (5, 6):
            made = tuple(self.values(depth, (0, 1, 2, 3, 4, 10)))
            self.made.append(made)
            return made
        return self.random.choice(LEAVES)

    def values(self, depth: int, lengths: tuple[int, ...]) -> Iterator[Any]:
        return (self.value(depth - 1) for _ in range(self.random.choice(lengths)))

    def numbers(self) -> list[Any]:
        low, high = self.random.choice(
            ((-100, 100), (-30_000, 30_000), (-(2**31), 2**31), (-(2**63), 2**63), (0, 2**64))
        )
        numbers: list[Any] = [self.random.randrange(low, high) for _ in range(self.random.choice((7, 8, 30)))]
        if self.random.random() < 0.3:
            numbers = [float(number) for number in numbers]
        if self.random.random() < 0.2:
            numbers[len(numbers) // 2] = self.random.choice(LEAVES)
        return numbers


@pytest.mark.parametrize("seed", SEEDS)
def test_values_arrive_as_pickle_makes_them(seed: int) -> None:
    maker = Maker(seed)
    context = maniple.get_context("fork")
    queue = context.SimpleQueue()
    with maniple.get_context("fork").Pool(1) as pool:
        for _ in range(VALUES_OF_A_SEED):
            items = maker.items()
            wanted = shape(pickle.loads(pickle.dumps(items)))
            arrived = {
                "map": pool.map(same, items, chunksize=len(items)),
                "imap": list(pool.imap(same, iter(items), chunksize=len(items))),
                "starmap": pool.starmap(together, [(items, None), ()])[0][0],
                "apply": pool.apply(same, (items,)),
                "arguments": list(pool.apply(together, tuple(items))),
            }
            queue.put(items)
            arrived["queue"] = queue.get()
            for way, values in arrived.items():
                assert shape(values) == wanted, (way, items)


def test_pipes_speak_to_the_standard_pickle(seed: int = 99) -> None:
    maker = Maker(seed)
    here, there = maniple.Pipe()
    for _ in range(VALUES_OF_A_SEED):
        items = maker.items()
        here.send(items)
        stream = there.recv_bytes()
        assert shape(pickle.loads(stream)) == shape(items)
        for protocol in (4, 5):
            here.send_bytes(pickle.dumps(items, protocol))
            assert shape(there.recv()) == shape(items)


def test_equal_texts_of_a_task_arrive_as_one() -> None:
    records = [{"".join(("na", "me")): "".join(("us", "er"))} for _ in range(50)]
    with maniple.get_context("fork").Pool(1) as pool:
        back = pool.map(same, records, chunksize=50)
    assert back == records
    assert len({id(key) for record in back for key in record}) == 1
    assert len({id(value) for record in back for value in record.values()}) == 1


def distinct(values: list[Any]) -> int:
    return len(set(map(id, values)))


def columns(rows: int) -> dict[str, list[Any]]:
    """Items with a column of different texts, and columns of equal texts."""
    return {
        "id": [f"user {row}" for row in range(rows)],
        "country": ["United Kingdom"] * rows,
        "about": ["a text of more than thirty-two bytes"] * rows,
        "bytes": [b"some bytes"] * rows,
    }


def test_each_text_is_one_object_in_any_number() -> None:
    texts = [f"{number} is the number of this text" * 3 for number in range(4000)]
    many = random.Random(7).choices(texts, k=30_000)
    with maniple.get_context("fork").Pool(1) as pool:
        assert pool.apply(distinct, (many,)) == distinct(many)
        table = pool.apply(columns, (20_000,))
    assert {name: distinct(column) for name, column in table.items()} == {
        "id": 20_000,
        "country": 1,
        "about": 1,
        "bytes": 1,
    }


def test_text_and_bytes_of_the_same_content_are_two() -> None:
    with maniple.get_context("fork").Pool(1) as pool:
        assert pool.apply(same, (["key", b"key", "key", b"key"],)) == ["key", b"key", "key", b"key"]


def test_many_different_then_many_equal_texts() -> None:
    texts = [f"text {number}" for number in range(3000)] + ["same"] * 3000
    with maniple.get_context("fork").Pool(1) as pool:
        assert pool.map(same, texts, chunksize=6000) == texts


def test_items_without_other_references() -> None:
    """Only its task refers to each; the second is the first again."""

    def items() -> Iterator[list[Any]]:
        first = ["twice"]
        yield first
        yield first
        del first
        yield ["once"]

    with maniple.get_context("fork").Pool(1) as pool:
        back = list(pool.imap(same, items(), chunksize=3))
    assert back == [["twice"], ["twice"], ["once"]]
    assert back[0] is back[1]


def test_items_removed_from_their_list_during_the_call() -> None:
    shared = ["shared"]
    items: list[Any] = [shared, [shared], shared]
    with maniple.get_context("fork").Pool(1) as pool:
        asked = pool.map_async(same, items, chunksize=3)
        items.clear()
        first, second, third = asked.get(timeout=60)
    assert first is third
    assert second[0] is first


class Shortens:
    """An item that shortens its list when it is pickled."""

    def __init__(self, items: list[Any]) -> None:
        self.items = items

    def __reduce__(self) -> Any:
        del self.items[1000:]
        return int, ("0",)


def test_a_list_shrinks_during_the_call() -> None:
    items: list[Any] = list(range(200_000))
    items[50] = Shortens(items)
    with maniple.get_context("fork").Pool(1) as pool:
        with pytest.raises(RuntimeError, match="the list was changed during the call: 199000 of its items"):
            pool.map(abs, items, chunksize=1)
        assert pool.map(abs, [-1, -2]) == [1, 2]


def byte_strings(count: int, size: int) -> list[bytes]:
    return [number.to_bytes(4, "big") + bytes(size - 4) for number in range(count)]


@pytest.mark.parametrize("size", [17_000, 1_100_000])
def test_more_long_byte_strings_than_descriptors_of_a_wire(size: int) -> None:
    count = 1000 if size < 1_000_000 else 300
    many = byte_strings(count, size)
    with maniple.get_context("fork").Pool(1) as pool:
        assert pool.apply_async(same, (many,)).get(timeout=100) == many
        assert pool.apply_async(byte_strings, (count, size)).get(timeout=100) == many
        assert pool.map_async(len, many, chunksize=count).get(timeout=100) == [size] * count
        assert pool.apply_async(len, (tuple(many * 3),)).get(timeout=100) == 3 * count


def rows(count: int) -> list[Any]:
    return [[number, (number,), {"a": [number]}] for number in range(count)]


def test_the_collectors_callbacks_see_no_partly_filled_value() -> None:
    stash: list[Any] = []

    def look(phase: str, _: object) -> None:
        if phase == "stop":
            stash[:] = [type(thing[-1]) for thing in gc.get_objects() if type(thing) in (list, tuple) and thing]

    with maniple.get_context("fork").Pool(2) as pool:
        gc.callbacks.append(look)
        try:
            for _ in range(5):
                assert pool.map(rows, [30] * 10, chunksize=2) == [rows(30)] * 10
                assert pool.apply(len, (rows(1000),)) == 1000
        finally:
            gc.callbacks.remove(look)
    assert gc.isenabled()
