"""`maniple.Pool`, in place of the standard package's by changing one name."""

from __future__ import annotations

from .base import PoolAdapter


class Library(PoolAdapter):
    module_name = "maniple"
    distribution = "maniple"
