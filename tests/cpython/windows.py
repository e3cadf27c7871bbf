"""A twin of a CPython for Windows, which runs under Wine: CPython's own tests for Windows on another system.

The kit is a folder of `scripts/test_windows.sh` that also has a CPython for Windows: `py311/python.exe` with its `DLLs`
and its `Lib`, the tests included; of several the first is used, or the one whose folder is given instead of the kit.
`scripts/build_windows.sh` puts the package into it. The twin differs from that Python as
`twin.py` says. It is started by a script of the twin's folder, because Wine's programs need pipes as standard streams.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from twin import STANDARD, Missing, Twin, folder_of, link

__all__ = ["WindowsTwin"]

STARTER = """\
#!/bin/bash
set -o pipefail
export WINEPREFIX='{kit}/prefix' WINEARCH=win64 WINEDEBUG="${{WINEDEBUG--all}}" WINEDLLOVERRIDES=winedbg.exe=d
unset DISPLAY LD_LIBRARY_PATH PYTHONHOME PYTHONPATH
# Wine's server and the system's processes, which keep the pipes of the first program open, belong to no job.
if env -u MANIPLE_SUITE_JOB wineserver -p600 </dev/null >/dev/null 2>&1; then
    env -u MANIPLE_SUITE_JOB wine cmd /c exit </dev/null >/dev/null 2>&1
fi
wine '{program}' "$@" </dev/null 2>&1 | cat
"""


class WindowsTwin(Twin):
    """The twin of the Python in a kit."""

    patience = 900

    def __init__(self, package: str, kit: Path, extra: dict[str, Path] | None = None) -> None:
        kit = kit.resolve()
        found = [kit / "python.exe"] if (kit / "python.exe").exists() else sorted(kit.glob("py3*/python.exe"))
        if not found:
            raise Missing(f"{kit} has no CPython for Windows (py311/python.exe)")
        self.source = found[0].parent
        self.kit = self.source.parent
        super().__init__(package, extra)

    def standard_library(self) -> Path:
        return self.source / "Lib"

    def test_folders(self) -> list[Path]:
        return [self.source / "Lib" / "test"]

    def _build(self, extra: dict[str, Path]) -> None:
        home = self.folder / "windows"
        self.library = home / "Lib"
        self.tests = self.library / "test"
        self.library.mkdir(parents=True)
        for entry in self.source.iterdir():
            # Copies: Python looks for its library beside the file of its program.
            if entry.suffix.lower() in (".exe", ".dll"):
                shutil.copy2(entry, home / entry.name)
        ours = self.package != STANDARD
        (home / "DLLs").mkdir()
        for entry in (self.source / "DLLs").iterdir():
            if ours and entry.stem == "_multiprocessing":
                real = self.folder / "guarded" / entry.name
                real.parent.mkdir()
                shutil.copy2(entry, real)
                file = "Z:" + str(real).replace("/", "\\\\")
                self._write("_multiprocessing", "guarded.py", PACKAGE=self.package, NAME="_multiprocessing", FILE=file)
            else:
                link(entry, home / "DLLs" / entry.name)
        for entry in self.standard_library().iterdir():
            if entry.name not in ("test", "site-packages", *((STANDARD,) if ours else ())):
                link(entry, self.library / entry.name)
        self._link_tests(extra)
        if ours:
            package = self.kit / "package" / self.package
            if not (package / "_maniple.pyd").exists():
                raise Missing(f"{package} is missing: scripts/build_windows.sh {self.kit}")
            link(package, self.library / self.package)
            link(folder_of("cloudpickle"), self.library / "cloudpickle")
            self._write(STANDARD, "stand_in.py", PACKAGE=self.package)
        self._write("maniple_suite_worker", "worker.py", into="__main__.py")
        self.python.parent.mkdir()
        self.python.write_text(STARTER.format(kit=self.kit, program=home / "python.exe"))
        self.python.chmod(0o755)
        subprocess.run([self.python, "-c", "pass"], check=True, timeout=self.patience)
