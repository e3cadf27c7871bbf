"""The entry point ``pyinstaller40``: PyInstaller calls `get_hook_dirs` when it builds a program that uses this package."""

import os

__all__ = ["get_hook_dirs"]


def get_hook_dirs() -> list[str]:
    """Return the folder with ``hook-maniple.py``."""
    return [os.path.dirname(__file__)]
