"""Blocks of anonymous shared memory, cut out of larger arenas.

An *arena* is one mapping without a name; a *block* is ``(arena, start, stop)``, offsets in bytes.  The heap keeps every
byte of every arena in exactly one block, which is either free or allocated:

* `_FreeBlocks` has the free blocks in three indexes, which find a block of sufficient length, and the free neighbours of a
  freed block, which are merged with it;
* `Heap._allocated_blocks` has the allocated blocks of each arena.  A large arena is released with its last block.

The garbage collector may free a block at any line of this file, in the thread that holds the heap's lock.  So `Heap.free` never
waits: if the lock is held, it leaves the block on a list for the next caller.
"""

from __future__ import annotations

import bisect
import mmap
import os
import sys
import tempfile
import threading
from collections import deque

from . import util
from ._impl.compat import public_module
from ._impl.memory.mappings import map_file
from ._impl.start.descriptors import above_stdio, close_own, mark
from ._maniple import Hold, nameless_memory
from .context import assert_spawning, reduction  # noqa: F401  # programs use `heap.assert_spawning`

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["BufferWrapper"]

Block = tuple["Arena", int, int]


class Arena:
    """A mapping of `size` bytes: of new, zeroed shared memory (`fd` is -1), or of the descriptor `fd`, which the arena then owns."""

    def __init__(self, size: int, fd: int = -1) -> None:
        self.size, self.fd = size, (self._fresh_fd(size) if fd == -1 else fd)
        util.Finalize(self, close_own, (self.fd, mark(self.fd)))
        self.buffer: Any = map_file(self.fd, size)

    @staticmethod
    def _fresh_fd(size: int) -> int:
        """Return the descriptor of a file of `size` bytes without a name."""
        if hasattr(os, "memfd_create") or sys.platform == "win32":
            return nameless_memory("maniple-heap", size)
        fd, path = tempfile.mkstemp(prefix=f"pym-{os.getpid()}-", dir=util.get_temp_dir())
        os.unlink(path)
        fd = above_stdio(fd)
        try:
            os.ftruncate(fd, size)
        except BaseException:
            os.close(fd)
            raise
        return fd


def reduce_arena(a: Arena) -> tuple[Any, ...]:
    """Return the reduced form of an arena: a duplicate of its descriptor."""
    return rebuild_arena, (a.size, reduction.DupFd(a.fd))


def rebuild_arena(size: int, dupfd: Any) -> Arena:
    """Unpickle what `reduce_arena` returned."""
    return Arena(size, dupfd.detach())


reduction.register(Arena, reduce_arena)


class _FreeBlocks:
    """The free blocks of a heap, with indexes by length, by first offset and by end."""

    def __init__(self) -> None:
        self.lengths: list[int] = []  # sorted; the keys of by_length
        self.by_length: dict[int, list[Block]] = {}
        self.starting: dict[tuple[Arena, int], Block] = {}
        self.ending: dict[tuple[Arena, int], Block] = {}

    def add(self, block: Block) -> None:
        """Add a block."""
        arena, first, end = block
        if end - first not in self.by_length:
            bisect.insort(self.lengths, end - first)
        self.by_length.setdefault(end - first, []).append(block)
        self.starting[arena, first] = self.ending[arena, end] = block

    def discard(self, block: Block) -> None:
        """Remove a block."""
        arena, first, end = block
        del self.starting[arena, first], self.ending[arena, end]
        peers = self.by_length[end - first]
        peers.remove(block)
        if not peers:
            del self.by_length[end - first]
            self.lengths.remove(end - first)

    def take(self, size: int) -> Block | None:
        """Remove the shortest block of at least `size` bytes and return it; None if there is none."""
        place = bisect.bisect_left(self.lengths, size)
        if place == len(self.lengths):
            return None
        best = self.by_length[self.lengths[place]][-1]
        self.discard(best)
        return best

    def joined(self, block: Block) -> Block:
        """Remove the free neighbours of `block`, and return the block merged with them."""
        arena, first, end = block
        before, after = self.ending.get((arena, first)), self.starting.get((arena, end))
        if before is not None:
            self.discard(before)
            first = before[1]
        if after is not None:
            self.discard(after)
            end = after[2]
        return arena, first, end


class Heap:
    """A best-fit allocator of shared memory. In a forked child the heap starts empty.

    Args:
        size: the size of the first arena in bytes; later arenas are twice as large, up to a limit.
    """

    #: bytes; all blocks start at a multiple of it, which suffices for every C type of ctypes
    _alignment = 16
    #: bytes; a larger arena is released when its last block is freed
    _DISCARD_FREE_SPACE_LARGER_THAN = 4 << 20
    _DOUBLE_ARENA_SIZE_UNTIL = 4 << 20

    def __init__(self, size: int = mmap.PAGESIZE) -> None:
        self._next_size = size
        self._start_afresh()

    def _start_afresh(self) -> None:
        self._owner_pid, self._lock = os.getpid(), threading.Lock()
        self._arenas: list[Arena] = []
        self._free = _FreeBlocks()
        self._allocated_blocks: dict[Arena, set[tuple[int, int]]] = {}
        self._pending_free_blocks: deque[Block] = deque()
        # Whether an exception, of a signal handler or for lack of memory, has ended a change of the free blocks before its end.
        self._is_torn = False
        self._n_mallocs = self._n_frees = 0

    @property
    def _len_to_seq(self) -> dict[int, list[Block]]:
        """The free blocks, by length."""
        return self._free.by_length

    def malloc(self, size: int) -> Block:
        """Return a block ``(arena, start, stop)`` of at least `size` bytes. Its content is undefined.

        Raises:
            ValueError, OverflowError: `size` is negative or too large.
        """
        if size < 0:
            raise ValueError(f"Size {size:n} out of range")
        if size >= sys.maxsize:
            raise OverflowError(f"Size {size:n} too large")
        if os.getpid() != self._owner_pid:
            self._start_afresh()
        wanted = self._rounded(max(size, 1), self._alignment)
        with Hold(self._lock):
            self._settle_pending()
            self._is_torn = True
            arena, first, end = self._free.take(wanted) or self._grow(wanted)
            if first + wanted < end:
                self._free.add((arena, first + wanted, end))
            block, living = (arena, first, first + wanted), self._allocated_blocks[arena]
            self._n_mallocs += 1
            # The block is allocated from this step on.
            living.add(block[1:])
            self._is_torn = False
            return block

    def free(self, block: Block) -> None:
        """Return a block to the heap. The call never waits, so a garbage collection may make it at any time."""
        if os.getpid() != self._owner_pid:
            raise ValueError(f"block of process {self._owner_pid} freed in process {os.getpid()}")
        pending, guard = self._pending_free_blocks, self._lock
        pending.append(block)
        # A thread that is about to release the lock may miss the block, which then stays on the list until the next call.
        taken = True
        while pending and taken:
            with Hold(guard, 0) as taken:
                if taken:
                    self._settle_pending()

    @staticmethod
    def _rounded(size: int, step: int) -> int:
        return -(-size // step) * step

    def _settle_pending(self) -> None:
        if self._is_torn:
            self._find_free_blocks()
        # One at a time: the collector may append between any two lines.
        while self._pending_free_blocks:
            block = self._pending_free_blocks[0]
            self._is_torn = True
            living = self._allocated_blocks[block[0]]
            # The block is free from this step on.
            living.remove(block[1:])
            self._pending_free_blocks.popleft()
            self._n_frees += 1
            whole = self._free.joined(block)
            if living or block[0].size <= self._DISCARD_FREE_SPACE_LARGER_THAN:
                self._free.add(whole)
            else:
                self._give_back(block[0])
            self._is_torn = False

    def _find_free_blocks(self) -> None:
        """Find the free blocks from those that are allocated."""
        self._arenas = list(self._allocated_blocks)
        if self._pending_free_blocks:
            arena, *place = self._pending_free_blocks[0]
            if tuple(place) not in self._allocated_blocks.get(arena, ()):
                self._pending_free_blocks.popleft()
        self._free = _FreeBlocks()
        for arena, living in self._allocated_blocks.items():
            at = 0
            for first, end in sorted(living):
                if at < first:
                    self._free.add((arena, at, first))
                at = end
            if at < arena.size:
                self._free.add((arena, at, arena.size))
        self._is_torn = False

    def _give_back(self, arena: Arena) -> None:
        del self._allocated_blocks[arena]
        self._arenas.remove(arena)

    def _grow(self, wanted: int) -> Block:
        size = self._rounded(max(self._next_size, wanted), mmap.PAGESIZE)
        self._next_size = min(self._next_size * 2, max(self._next_size, self._DOUBLE_ARENA_SIZE_UNTIL))
        util.info("allocating a new mmap of length %d", size)
        fresh = Arena(size)
        self._allocated_blocks[fresh] = set()
        self._arenas.append(fresh)
        return fresh, 0, size


def _free_held(heap: Heap, held: list[Block]) -> None:
    for block in held:
        heap.free(block)


class BufferWrapper:
    """A block of shared memory of `size` bytes, which is freed when the object is collected.

    It may be sent to a child. The process that made the block owns it.
    """

    #: the heap of all blocks; a program may replace it
    _heap = Heap()

    def __init__(self, size: int) -> None:
        heap = BufferWrapper._heap
        held: list[Block] = []
        # Made first: if an exception ends this method, the end of this object frees the block, once.
        util.Finalize(self, _free_held, (heap, held))
        held.append(heap.malloc(size))
        self._state = held[0], size

    def create_memoryview(self) -> memoryview:
        """Return a writable view of exactly `size` bytes."""
        (arena, start, _), size = self._state
        return memoryview(arena.buffer)[start : start + size]


public_module.finish(globals())
