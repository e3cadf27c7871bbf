"""The limits that a large pool cannot keep: the pool refuses its size before it starts a worker, or before it changes its size."""

from __future__ import annotations

import errno

from ..._maniple import impossible_size

__all__ = ["refuse_impossible_size"]


def refuse_impossible_size(processes: int, descriptors: int, grows: bool = False) -> None:
    """Raise OSError if this process can never have so many workers at once.

    Args:
        processes: the number of workers, with the spare ones.
        descriptors: the number of descriptors of this process that each worker needs.
        grows: whether the pool exists. A small new pool is not checked: if it is impossible, its first start fails soon.
    """
    try:
        refusal = impossible_size(processes, descriptors, grows)
    except OverflowError:
        refusal = False, f"{processes} workers are more than any system can have: ask for fewer workers"
    if refusal is not None:
        needs_descriptors, why = refusal
        raise OSError(errno.EMFILE if needs_descriptors else errno.EAGAIN, why)
