"""Failure scenarios: small functions that break a pool and say what must come of it.

Each runs in a process of its own, `python -m scenarios NAME --package P --method M`,
so that one which hangs or crashes takes nothing else down.
"""
