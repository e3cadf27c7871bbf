"""The standard package's `multiprocessing.Pool`: the one that every ratio is taken against."""

from __future__ import annotations

from .base import PoolAdapter


class Library(PoolAdapter):
    module_name = "multiprocessing"
