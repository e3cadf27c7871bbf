"""The heap of shared objects after changes that an exception has ended."""

from __future__ import annotations

import gc
import importlib
import random
from typing import Any

import pytest


class Interrupted(BaseException):
    """Raised as by a signal handler."""


@pytest.fixture
def module(mp_package: str) -> Any:
    return importlib.import_module(f"{mp_package}.heap")


def check(heap: Any, blocks: list[Any]) -> None:
    """Allocate some more, so that a torn heap mends itself, and compare all blocks with what the heap says."""
    blocks.extend(heap.malloc(size) for size in (1, 100, 1000))
    taken: dict[Any, list[tuple[int, int]]] = {}
    for arena, first, end in blocks:
        taken.setdefault(arena, []).append((first, end))
    assert {arena: set(living) for arena, living in taken.items()} == {
        arena: living for arena, living in heap._allocated_blocks.items() if living
    }
    for arena in heap._arenas:
        free = [(first, end) for peers in heap._len_to_seq.values() for owner, first, end in peers if owner is arena]
        at = 0
        for first, end in sorted(taken.get(arena, []) + free):
            assert first == at
            at = end
        assert at == arena.size


@pytest.mark.parametrize("part", ["add", "discard", "take", "joined"])
@pytest.mark.parametrize("seed", range(8))
def test_a_change_that_is_interrupted_anywhere_leaves_a_whole_heap(module: Any, part: str, seed: int) -> None:
    pytest.importorskip("maniple")
    chance, heap, blocks = random.Random(seed), module.Heap(4096), []
    for _ in range(60):
        blocks.append(heap.malloc(chance.randrange(1, 900)))
    original = getattr(module._FreeBlocks, part)
    countdown = chance.randrange(1, 4)

    def interrupts(*args: Any) -> Any:
        nonlocal countdown
        countdown -= 1
        if countdown == 0:
            if chance.random() < 0.5:
                original(*args)
            raise Interrupted
        return original(*args)

    setattr(module._FreeBlocks, part, interrupts)
    try:
        for _ in range(40):
            try:
                if chance.random() < 0.5:
                    blocks.append(heap.malloc(chance.randrange(1, 900)))
                else:
                    # Accepted, even if the exception ends the work on it.
                    heap.free(blocks.pop(chance.randrange(len(blocks))))
            except Interrupted:
                break
    finally:
        setattr(module._FreeBlocks, part, original)
    check(heap, blocks)


@pytest.mark.parametrize("is_made", [False, True])
def test_a_wrapper_whose_making_is_interrupted_frees_its_block_once(
    module: Any, is_made: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("maniple")
    heap = module.Heap(4096)
    monkeypatch.setattr(module.BufferWrapper, "_heap", heap)
    others = [module.BufferWrapper(64)]  # the heap's memory has a finalizer, too
    finalize = module.util.Finalize

    def interrupts(*args: Any) -> None:
        if is_made:
            finalize(*args)
        raise Interrupted

    with monkeypatch.context() as patch:
        patch.setattr(module.util, "Finalize", interrupts)
        with pytest.raises(Interrupted) as caught:
            module.BufferWrapper(64)
    # The traceback keeps the unfinished object until the others may have got its block.
    others.extend(module.BufferWrapper(64) for _ in range(3))
    del caught
    gc.collect()
    others.extend(module.BufferWrapper(64) for _ in range(3))
    blocks = [other._state[0] for other in others]
    assert len(set(blocks)) == 7
    check(heap, blocks)
