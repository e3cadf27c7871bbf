"""Makes ``import multiprocessing`` import this package, in this process and in all children that it starts.

`python -m maniple` calls `install`.  From then on every import of a module of the standard package, also in
`concurrent.futures.process` and in libraries, returns this package's module of that name.  It is one object under two names,
so a class has one identity for both imports.  A forked child inherits this.  The command line of a child that starts as a fresh
interpreter contains a `preamble`.

Pickles, reprs and logs then name the standard package: the ``__module__`` of classes and functions is ``multiprocessing.x``, if that
module has them.  So a plain Python can read a pickle that was written here, and the reverse.  Modules and methods keep their
names: ``multiprocessing.__name__`` is ``maniple``.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import FunctionType, ModuleType

from .. import PACKAGE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["install", "preamble"]

_OURS = PACKAGE
_THEIRS = "multiprocessing"
# The private functions and classes of the standard package, of all versions. Other private objects keep their own names: a plain
# interpreter that a library starts, and that unpickles them, finds them only by these.
_STANDARD = frozenset(
    (
        "_BaseDictProxy _BaseSetProxy _C _ConnectionBase _DupFd _ForkingPickler _ParentProcess _PoolCache _ResourceSharer "
        "_SharedMemoryTracker _check_not_importing_main _check_timeout _cleanup _cleanup_tests _close_stdin _create_response "
        "_decode_message _exit_function _fixup_main_from_name _fixup_main_from_path _flush_std_streams _force_start_method "
        "_get_base_temp_dir _get_digest_name_and_payload _get_platform_default_context _handle_import_error _handle_preload "
        "_has_writeable_tempdir _helper_reraises_exception _init_timeout _main _make_filename _new_value "
        "_platform_supports_abstract_sockets _rebuild_partial _rebuild_socket _reduce_method _reduce_method_descriptor "
        "_reduce_partial _reduce_socket _remove_temp_dir _run_after_forkers _run_finalizers _serve_one _validate_family "
        "_verify_challenge _xml_dumps _xml_loads"
    ).split()
)
# The names that only newer versions of it have.
_SINCE = {
    "SetProxy": (3, 14),
    "_BaseDictProxy": (3, 13),
    "_BaseSetProxy": (3, 14),
    "_decode_message": (3, 14),
    "cleanup_noop": (3, 13),
}


def _under(package: str, other: str, name: str) -> str | None:
    """Return the name of a module of ``package`` with the top-level name replaced by ``other``; None for any other module."""
    top, dot, rest = name.partition(".")
    return other + dot + rest if top == package else None


def _is_private(module: str) -> bool:
    return "._" in module


# ---------------------------------------------------------------- module names of objects


def _said(where: object, holder: str) -> str | None:
    """Return the new ``__module__`` of an object of the module ``where`` in the module ``holder``; None leaves it unchanged."""
    if not isinstance(where, str):
        return None
    theirs = _under(_OURS, _THEIRS, where)
    if theirs is None and _under(_THEIRS, _OURS, where) is None:
        return None  # of another package
    if _is_private(where):
        # The object is written in a private module: the standard package has it in `holder`.
        return None if _is_private(holder) else _under(_OURS, _THEIRS, holder)
    return theirs


def _rename(thing: Any, holder: str, key: str) -> None:
    if thing.__name__ != key or (key.startswith("_") and key not in _STANDARD):
        return
    if _SINCE.get(key, ()) > sys.version_info:
        return
    said = _said(getattr(thing, "__module__", None), holder)
    if said is not None:
        line = vars(thing).get("__firstlineno__")  # dropped with the old name (3.13 and later)
        in_same_file = said == _under(_OURS, _THEIRS, thing.__module__)
        thing.__module__ = said
        if isinstance(thing, type):
            if line is not None and in_same_file:
                thing.__firstlineno__ = line  # type: ignore[attr-defined]
            for name, inner in list(vars(thing).items()):
                if isinstance(inner, type):
                    _rename(inner, holder, name)


def _give_other_name(module: ModuleType) -> None:
    """Register a loaded module under the standard package's name, and set that name as the module of its classes and functions."""
    for key, thing in list(vars(module).items()):
        if isinstance(thing, (type, FunctionType)):
            _rename(thing, module.__name__, key)
    theirs = _under(_OURS, _THEIRS, module.__name__)
    if theirs is not None:
        _accept_any_name(module.__loader__, module.__name__)
        _end_import(module)
        sys.modules[theirs] = module


def _end_import(module: ModuleType) -> None:
    """Do the import system's next steps for a loaded module.

    An import under the other name holds another lock, and does not wait until the import system has done so.
    """
    package, _, name = module.__name__.rpartition(".")
    if package in sys.modules:
        setattr(sys.modules[package], name, module)
    if getattr(module.__spec__, "_initializing", False):
        vars(module.__spec__)["_initializing"] = False


# ---------------------------------------------------------------- finding and loading


def _accept_any_name(loader: Any, name: str) -> None:
    """Make the loader of the module ``name`` answer for every name: `runpy` and `inspect` use the standard package's."""

    def renamed(tell: Any) -> Any:
        return lambda fullname=None: tell(name)

    if getattr(loader, "name", None) != name:  # the loader serves other modules as well
        return
    for asked in ("get_code", "get_source", "get_filename", "is_package"):
        tell = getattr(loader, asked, None)
        if tell is not None and asked not in vars(loader):
            setattr(loader, asked, renamed(tell))


def _name_when_loaded(spec: ModuleSpec) -> None:
    loader: Any = spec.loader
    load = loader.exec_module

    def load_and_name(module: ModuleType) -> None:
        load(module)
        _give_other_name(module)

    loader.exec_module = load_and_name
    _accept_any_name(loader, spec.name)


#: the specs of the modules that are being registered: the import system replaces them for a moment
_specs: dict[ModuleType, ModuleSpec | None] = {}


def _restore_specs() -> None:
    """In a forked child, restore the specs that other threads of the parent would have restored."""
    while _specs:
        module, spec = _specs.popitem()
        module.__spec__ = spec


class _OtherName:
    """A loader that returns this package's module under the standard package's name.

    It has no base class, since the import of `importlib.abc` takes 19 ms.
    """

    def __init__(self, ours: ModuleSpec) -> None:
        self._ours = ours

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        # Fully imported before it is in sys.modules, so that another thread never sees a part of it.
        module = import_module(self._ours.name)
        spec.loader_state = module.__spec__
        _specs[module] = spec.loader_state
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Register the module: the import system does that itself."""
        # The import system has set a spec with the requested name.
        spec: Any = module.__spec__
        module.__spec__ = spec.loader_state
        _specs.pop(module, None)

    def __getattr__(self, name: str) -> Any:
        """Return the loader's methods for source and code, for programs that inspect a module without importing it."""
        return getattr(self._ours.loader, name)


class _Alias:
    """A finder that returns this package's modules for the standard package's, and renames their objects at the
    load."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if _under(_OURS, _THEIRS, fullname) is not None:
            return self._find_ours(fullname, path, target)
        ours = _under(_THEIRS, _OURS, fullname)
        found = None if ours is None else find_spec(ours)
        if found is None:
            return None
        loader: Any = _OtherName(found)
        spec = ModuleSpec(fullname, loader, origin=found.origin)
        spec.submodule_search_locations = found.submodule_search_locations
        return spec

    def _find_ours(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None) -> ModuleSpec | None:
        for finder in list(sys.meta_path):
            find = getattr(finder, "find_spec", None)
            spec: ModuleSpec | None = None if finder is self or find is None else find(fullname, path, target)
            if spec is not None:
                _name_when_loaded(spec)
                return spec
        return None


_alias = _Alias()


def install() -> None:
    """Make ``multiprocessing`` mean this package from now on, also in modules that have imported the standard package before."""
    if _alias in sys.meta_path:
        return
    ours = {name: other for name in sys.modules if (other := _under(_THEIRS, _OURS, name)) is not None}
    theirs = {name: sys.modules.pop(name) for name in ours}
    finder: Any = _alias
    sys.meta_path.insert(0, finder)
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_restore_specs)
    for name, module in list(sys.modules.items()):
        if _under(_OURS, _THEIRS, name) is not None:
            _give_other_name(module)
    _renew_executor()
    if theirs:
        from .previous_imports import hand_over

        hand_over(theirs, ours)


def _renew_executor() -> None:
    """Import `concurrent.futures.process` again, which looks the package up at its import."""
    if sys.modules.pop("concurrent.futures.process", None) is not None:
        renewed = import_module("concurrent.futures.process")
        vars(sys.modules["concurrent.futures"])["ProcessPoolExecutor"] = renewed.ProcessPoolExecutor


def preamble() -> str:
    """Return the code that a fresh interpreter runs to install the alias; empty if it is not installed here."""
    return f"from {__name__} import install\ninstall()\n" if _alias in sys.meta_path else ""
