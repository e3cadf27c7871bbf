"""For PyInstaller: the modules of the package, most of which are imported when they are needed, and by the native one."""

from PyInstaller.utils.hooks import collect_submodules

hiddenimports = collect_submodules("maniple", lambda name: not name.startswith("maniple._pyinstaller"))
# CPython's test suite, which a function for its use imports.
excludedimports = ["test"]
