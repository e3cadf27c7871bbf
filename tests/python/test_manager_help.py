"""What `help` shows of managers: the public methods have a text, and those that make objects have the parameters of the objects."""

from __future__ import annotations

import inspect
from types import ModuleType

import pytest

pytestmark = pytest.mark.better_than_standard("the methods have no text and no parameters")

SIGNATURES = {
    "Queue": "(maxsize=0)",
    "JoinableQueue": "(maxsize=0)",
    "Lock": "()",
    "Semaphore": "(value=1)",
    "Condition": "(lock=None)",
    "Barrier": "(parties, action=None, timeout=None)",
    "Pool": "(processes=None, initializer=None, initargs=(), maxtasksperchild=None)",
    "list": "(sequence=(), /)",
    "Value": "(typecode, value, lock=True)",
    "Namespace": "(**kwds)",
}


@pytest.mark.parametrize("name", SIGNATURES)
def test_the_parameters_of_an_object(mp: ModuleType, name: str) -> None:
    method = getattr(mp.managers.SyncManager, name)
    assert (inspect.getdoc(method) or "").startswith(f"{name}{SIGNATURES[name]}\n\nMake a")
    # As in the standard package.
    assert str(inspect.signature(method)) == "(self, /, *args, **kwds)"


def test_all_public_methods_have_a_text(mp: ModuleType) -> None:
    for name in dir(mp.managers.SyncManager):
        if name.startswith("_"):
            continue
        member = getattr(mp.managers.SyncManager, name)
        assert inspect.getdoc(member), name


def test_the_signatures_of_clients_name_the_key(mp: ModuleType) -> None:
    for function in (mp.connection.Client, mp.connection.Listener, mp.managers.BaseManager, mp.managers.BaseProxy):
        assert "authkey" in inspect.signature(function).parameters


def test_shutdown_is_a_method_and_says_if_there_is_no_server(mp: ModuleType) -> None:
    assert "End the server process" in (inspect.getdoc(mp.managers.BaseManager.shutdown) or "")
    with pytest.raises(AttributeError, match="has started no server"):
        mp.managers.SyncManager().shutdown()
    with mp.get_context("fork").Manager() as manager:
        assert manager.list([1])[0] == 1
        manager.shutdown()
        manager.shutdown()
