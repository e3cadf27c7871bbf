"""Billiard: Celery's fork of the standard package."""

from __future__ import annotations

from .base import PoolAdapter


class Library(PoolAdapter):
    module_name = "billiard"
    distribution = "billiard"
