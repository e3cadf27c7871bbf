"""What PyInstaller has to know to build a program that uses this package: it asks for the folder of the hooks.

The entry point ``pyinstaller40`` of the wheel leads here.
"""

import os

__all__ = ["get_hook_dirs"]


def get_hook_dirs() -> list[str]:
    """Return the folder with ``hook-maniple.py``."""
    return [os.path.dirname(__file__)]
