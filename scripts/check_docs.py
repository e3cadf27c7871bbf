"""Checks the Markdown files: files and names that they mention exist, and links lead somewhere.

    python3 scripts/check_docs.py

In backticks, `pool/seats.rs` has to be the end of a tracked file's path, `Hub::postpone` and `queues.Queue` have to consist of words that
the sources contain, and `crates/maniple-sys/` has to be a folder. Where a sentence says "`adopt` in `pool/peers.rs`", that file has to
contain the name.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCES = {".rs", ".py", ".pyi", ".sh", ".toml", ".yml", ".c"}
CODE = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\]\(([^)#\s]+)(#[^)\s]*)?\)")
FILE = re.compile(r"[\w.-]+(/[\w.-]+)*\.(rs|py|pyi|sh|toml|md|yml)")
NAME = re.compile(r"[A-Za-z_]\w*((::|\.)[A-Za-z_]\w*)+(\(\))?|_[a-z]\w+|[A-Z][a-z]+[A-Z]\w*")
PLACE = re.compile(
    r"((?:`[^`]+`(?: \([^()]*\))?(?:,? and |, ))*`[^`]+`(?: \([^()]*\))?) (?:in|of) `([^`]+\.(?:rs|py|sh))`"
)
# Where names of other projects, of Python itself and of this project's past are at home.
UNCHECKED = {"CHANGELOG.md", "benchmarks/README.md", "tests/cpython/README.md"}
FOREIGN = {"asyncio", "os", "sys", "re", "concurrent", "typing", "multiprocessing", "ctypes", "test", "dh", "np"}


def tracked() -> list[str]:
    """Every file of the project by its path, new ones included."""
    git = ["git", "ls-files", "-co", "--exclude-standard"]
    try:
        names = subprocess.check_output(git, cwd=ROOT, text=True, stderr=subprocess.DEVNULL).splitlines()
    except (OSError, subprocess.CalledProcessError):
        # An unpacked archive.
        built = {"target", "build", "dist", "__pycache__"}
        paths = (path.relative_to(ROOT) for path in ROOT.rglob("*"))
        names = [str(path) for path in paths if not built & set(path.parts) and not path.parts[0].startswith(".venv")]
    return [name for name in names if (ROOT / name).is_file()]


def words(names: list[str]) -> set[str]:
    """Every word in the sources, and every name of a file or folder."""
    found: set[str] = set()
    for name in names:
        found.update(re.findall(r"\w+", name))
        if Path(name).suffix in SOURCES:
            found.update(re.findall(r"\w+", (ROOT / name).read_text(errors="replace")))
    return found


def prose(text: str) -> Iterator[tuple[int, str]]:
    """Paragraphs and rows of tables with the numbers of their first lines, without code blocks."""
    is_code, start, paragraph = False, 0, ""
    for number, line in enumerate([*text.splitlines(), ""], 1):
        is_fence = line.lstrip().startswith("```")
        if is_fence or is_code or not line.strip() or line.startswith(("|", "#", "- ")):
            if paragraph:
                yield start, paragraph
            paragraph = ""
        if not is_fence and not is_code and line.strip():
            start = start if paragraph else number
            paragraph = f"{paragraph} {line.strip()}".lstrip()
        is_code ^= is_fence


def problems(document: str, text: str, names: list[str], known: set[str]) -> Iterator[tuple[int, str]]:
    """What is wrong with a document of this name and text, with the number of a line."""
    folders = {str(parent) for name in names for parent in Path(name).parents}
    here = (ROOT / document).parent
    ignored = set(re.findall(r"[\w-]+/", (ROOT / ".gitignore").read_text()))
    for number, line in prose(text):
        for link, _ in LINK.findall(line):
            if "://" not in link and not (here / link).exists():
                yield number, f"the link leads nowhere: {link}"
        if document in UNCHECKED:
            continue
        for before, file in PLACE.findall(line):
            texts = [(ROOT / name).read_text(errors="replace") for name in names if f"/{name}".endswith("/" + file)]
            named = [code for code in CODE.findall(before) if not FILE.fullmatch(code)]
            for word in {word for code in named for word in re.findall(r"\w+", code)}:
                if not any(re.search(rf"\b{word}\b", text) for text in texts):
                    yield number, f"{file} does not contain {word}"
        for code in CODE.findall(line):
            if FILE.fullmatch(code):
                if not any(name == code or name.endswith("/" + code) for name in names) and not (here / code).is_file():
                    yield number, f"no such file: {code}"
            elif code.endswith("/") and re.fullmatch(r"[\w./-]+", code):
                if code not in ignored and not any(f"/{folder}/".endswith("/" + code) for folder in folders):
                    yield number, f"no such folder: {code}"
            elif NAME.fullmatch(code) and re.split(r"\W", code)[0] not in FOREIGN:
                for word in set(re.findall(r"\w+", code)) - known:
                    yield number, f"the sources do not contain {word}, of {code}"


def main() -> int:
    names = tracked()
    known = words(names)
    failed = False
    for document in sorted(name for name in names if name.endswith(".md")):
        for number, what in problems(document, (ROOT / document).read_text(), names, known):
            print(f"{document}:{number}: {what}", file=sys.stderr)
            failed = True
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
