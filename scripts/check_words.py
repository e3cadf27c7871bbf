"""Finds words and forms in comments, docstrings and documents that the house rules avoid.

    python3 scripts/check_words.py [ROOT]

The rules (CONTRIBUTING, "Prose") ask for a named subject and the field's verbs. A script can check a part of that: pronouns that
stand for an unnamed subject, and figures of speech in the place of a verb of the field. `RULES` lists each with the reason.

The exit status is 1 if something was found. Code, strings that are not docstrings, and text in backticks or code blocks are not
checked.
"""

from __future__ import annotations

import io
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

# This file names the words, and the tests of it contain them.
EXEMPT = ("scripts/check_words.py", "tests/python/test_words.py")
BUILT = {"target", "build", "dist", "__pycache__", ".venv", "node_modules"}

# `who` is right for people.
PERSON = re.compile(
    r"\b(users?|people|persons?|authors?|maintainers?|engineers?|developers?|contributors?|those|anyone) who\b", re.I
)
RULES: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE), advice)
    for pattern, advice in (
        (r"\bwho(?:so)?ever\b|\bwhomever\b", "name the process, thread or caller"),
        (r"\b(?:no|some|any)body\b|\bno[ -]one\b|\bsomeone\b", "name the process, thread or caller"),
        (r"(?<![-\w])(?-i:[Ww]ho)\b", "relative `who`: use `that`, or name the subject"),
        (r"\bkin\b|\bhereafter\b|\bthereof\b|\btherein\b", "use a word of the field"),
        (
            r"(?:^|[.:;(|] +)one (?:that|who|whose|which|with|without)\b",
            "`one` as a subject: repeat the noun",
        ),
        (
            r"\b(?:of|for|to|by|from|as|at|than|like) one (?:that|who|whose|which|without)\b",
            "`one` as a subject: repeat the noun",
        ),
        (r"\b(?:is|are|was|were|be|been|being) told\b", "say what the subject receives, reads or returns"),
        (r"\bhears?\b|\bheard\b", "say what the subject receives or reads"),
        (r"\bstands\b", "say what the subject is, means or contains"),
        (r"\bgives\b(?! up\b)", "returns, passes, sends, releases or sets"),
        (r"\b(?:lives|goes|went|go|going) on\b", "continues, or stays"),
        (r"\bbecomes? of\b|\bbecame of\b", "say how the subject ends"),
        (r"\bwhatever\b", "say for which values the statement holds"),
        (r"\bfor ever\b", "forever"),
        (r"\bfor want of\b", "for lack of"),
        (r"\bsees? to it\b|\bsee to\b", "ensures, or the verb of the field"),
        (r"\bhas had enough\b|\blets? go of\b|\blet in\b", "ends, releases, accepts or authenticates"),
        (r"\b(?:come|comes|came|go|goes|went) along\b", "is sent with, or arrives with"),
        (r"\b(?:to|can|cannot|could|not) be had\b|\bis had\b", "is available, or the verb of the field"),
        (r"\bin vain\b", "without success, or needlessly"),
        (r"\bpass(?:es|ed)? over\b", "skips"),
        (r"\bof no (?:more |any )?use\b", "unusable"),
        (r"\b(?:breaks?|broken|broke) (?:it |them )?off\b", "interrupts, or ends"),
        (r"\bone's own\b", "separate, or name the owner"),
        (r"\bholds? (?:it |them |\w+s? )?up\b|\bheld up\b", "delays, or blocks"),
        (r"\bhand(?:s|ed)? (?:it |them )?on\b", "passes on"),
        (r"\b(?:is|are|was|were) looked (?:at|for)\b", "is checked, or is read"),
        (r"\blook(?:s|ed)? after\b", "serves, drives or repairs"),
        (r"\bin the making\b", "that is being made, or builds"),
        (r"\b(?:given?|gives?|gave) (?:it |them )?back\b", "releases, or returns"),
        (r"\bas a rule\b", "usually"),
        (r"\bgo(?:es|ne)? mad\b|\bout of (?:its|his) mind\b", "faulty"),
    )
)


class Words:
    """The prose of a file: (line number, text) for each comment, docstring or paragraph line."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.text = path.read_text(encoding="utf-8", errors="replace")

    def __iter__(self) -> Iterator[tuple[int, str]]:
        kind = self.path.suffix
        if kind in (".py", ".pyi"):
            return self._of_python()
        if kind == ".rs":
            return self._of_rust()
        if kind == ".md":
            return self._of_markdown()
        return self._of_lines(re.compile(r"(?:^|\s)#(?!!)(.*)"))

    def _of_lines(self, comment: re.Pattern[str]) -> Iterator[tuple[int, str]]:
        for number, line in enumerate(self.text.splitlines(), 1):
            if found := comment.search(line):
                yield number, found[1].strip()

    def _of_rust(self) -> Iterator[tuple[int, str]]:
        is_code = False
        for number, text in self._of_lines(re.compile(r"(?:^|\s)//[/!]?(.*)")):
            if text.startswith("```"):
                is_code = not is_code
            elif not is_code:
                yield number, text
            elif found := re.search(r"(?:^|\s)//(.*)", text):  # a comment in an example
                yield number, found[1].strip()

    def _of_markdown(self) -> Iterator[tuple[int, str]]:
        is_code = False
        for number, line in enumerate(self.text.splitlines(), 1):
            if line.lstrip().startswith("```"):
                is_code = not is_code
            elif not is_code and not line.startswith("    "):
                yield number, line.strip()

    def _of_python(self) -> Iterator[tuple[int, str]]:
        before = tokenize.NEWLINE
        try:
            for token in tokenize.generate_tokens(io.StringIO(self.text).readline):
                if token.type == tokenize.COMMENT:
                    yield token.start[0], token.string.lstrip("#: ")
                elif token.type == tokenize.STRING and before in (tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT):
                    is_example = False
                    for number, line in enumerate(token.string.splitlines(), token.start[0]):
                        is_example = (
                            is_example and (not line.strip() or line.startswith(" " * 8)) or line.endswith("::")
                        )
                        if not is_example:
                            yield number, line.strip().lstrip('rb"').rstrip('"')
                if token.type not in (tokenize.NL, tokenize.COMMENT):
                    before = token.type
        except (tokenize.TokenError, IndentationError) as problem:
            yield 1, f"cannot be read: {problem}"


def faults(path: Path) -> Iterator[tuple[int, str, str]]:
    """(line number, words, advice) for each fault in a file."""
    for number, text in Words(path):
        prose = PERSON.sub(r"\1 that", re.sub(r"``[^`]*``|`[^`]*`|\]\([^ )]*\)", "`code`", text))
        for pattern, advice in RULES:
            for found in pattern.finditer(prose):
                yield number, found[0].strip(".:;(| "), advice


def files(root: Path) -> Iterator[Path]:
    """The files to check."""
    try:
        git = ["git", "ls-files", "-co", "--exclude-standard"]
        names = subprocess.check_output(git, cwd=root, text=True, stderr=subprocess.DEVNULL).splitlines()
    except (OSError, subprocess.CalledProcessError):  # an unpacked archive
        names = [str(path.relative_to(root)) for path in root.rglob("*") if not BUILT & set(path.parts)]
    for name in sorted(set(names)):
        path = root / name
        is_prose = path.suffix in (".py", ".pyi", ".rs", ".md", ".sh", ".toml", ".yml") or path.name == "Makefile"
        if is_prose and path.is_file() and name not in EXEMPT and name != "CHANGELOG.md":
            yield path


def main() -> int:
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parent.parent
    checked = found = 0
    for path in files(root):
        checked += 1
        for number, words, advice in faults(path):
            found += 1
            print(f"{path.relative_to(root)}:{number}: “{words}”: {advice}")
    print(f"words: {found} faults in {checked} files" if found else f"words: {checked} files, no faults")
    return 1 if found or not checked else 0


if __name__ == "__main__":
    sys.exit(main())
