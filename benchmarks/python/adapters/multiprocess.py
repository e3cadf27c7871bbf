"""Multiprocess: the standard package with dill in the place of pickle."""

from __future__ import annotations

from .base import PoolAdapter


class Library(PoolAdapter):
    module_name = "multiprocess"
    distribution = "multiprocess"
