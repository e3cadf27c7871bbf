"""``python -m maniple script.py``: run an unchanged program on this package."""

from __future__ import annotations

from ._impl.run.program import main

__all__ = ["main"]

if __name__ == "__main__":
    main()
