"""Processes, as seen by the program that starts them."""

from __future__ import annotations

import logging
from types import ModuleType
from typing import Any

import pytest
from pools import METHODS


def tell_record_name(pipe: Any) -> None:
    pipe.send(logging.getLogger("some").makeRecord("some", logging.INFO, __file__, 1, "text", (), None).processName)


@pytest.mark.parametrize("method", METHODS)
def test_log_records_name_the_process(mp: ModuleType, method: str) -> None:
    ctx = mp.get_context(method)
    here, there = ctx.Pipe()
    with here, there:
        process = ctx.Process(target=tell_record_name, args=(there,), name="Worker bee")
        process.start()
        assert here.recv() == "Worker bee"
        process.join()
        process.close()
