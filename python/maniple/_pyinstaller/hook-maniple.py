"""The modules of the package for PyInstaller, which does not find imports in functions or in the native module."""

from PyInstaller.utils.hooks import collect_submodules

hiddenimports = collect_submodules("maniple", lambda name: not name.startswith("maniple._pyinstaller"))
# CPython's test suite, which only `util._cleanup_tests` imports.
excludedimports = ["test"]
