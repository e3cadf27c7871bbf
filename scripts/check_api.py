"""Compares the package's public surface with the running Python's own: nothing may lack, nothing differ, additions are welcome.

    .venv/bin/python scripts/check_api.py /path/to/api_surface.py

The tool named lists every difference; this decides which are additions: a parameter more that need not be given.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path


def main(tool: str) -> int:
    if not Path(tool).is_file():
        print(f"{tool} is not there. Say where it lies: make api API=/path/to/api_surface.py", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "found.json"
        command = [sys.executable, tool, "--package", "maniple", "--json", str(report)]
        done = subprocess.run(command, capture_output=True, text=True)
        if not report.exists():
            print(f"the comparison failed:\n{done.stdout}{done.stderr}", file=sys.stderr)
            return 1
        content = json.loads(report.read_text())
    added = 0
    faults = []
    for finding in content["findings"]:
        if is_addition(finding):
            added += 1
        else:
            faults.append(finding)
    for fault in faults:
        print(f"  {fault['kind']:15} {fault['where']}  {fault['detail'][:300]}")
    version = "{}.{}.{}".format(*sys.version_info)
    same = sum(content["checked"].values()) - len(content["findings"])
    print(f"api on Python {version}: {same} passed, {len(faults)} failed ({added} additions)")
    return 1 if faults else 0


def is_addition(finding: dict) -> bool:
    """Whether every call that fits the standard signature fits ours and means the same."""
    if finding["kind"] != "signature":
        return False
    told = re.fullmatch(r"stdlib: \((.*)\)  package: \((.*)\)", finding["detail"], re.DOTALL)
    if told is None:
        return False
    theirs, ours = (parameters(text) for text in told.groups())
    left = list(theirs)
    for parameter in ours:
        if left and parameter == left[0]:
            left.pop(0)
        elif not need_not_be_given(parameter):
            # A parameter that may now be left out is still the same one.
            if not (left and parameter.split("=")[0] == left[0].split("=")[0]):
                return False
            left.pop(0)
        elif left and parameter.split("=")[0] == left[0] and "=" not in left[0]:
            left.pop(0)
        elif (
            not parameter.endswith(("|*", "|**"))
            and "|kw" not in parameter
            and left
            and not left[0].endswith(("|*", "|**"))
        ):
            return False  # a place among the positional ones has shifted
    return not left


def need_not_be_given(parameter: str) -> bool:
    return "=" in parameter or parameter.endswith(("|*", "|**"))


def parameters(text: str) -> list[str]:
    """The parameters of a signature as the tool writes them; defaults may hold commas."""
    found, depth, start = [], 0, 0
    for place, sign in enumerate(text):
        depth += (sign in "([{") - (sign in ")]}")
        if sign == "," and depth == 0:
            found.append(text[start:place].strip())
            start = place + 1
    last = text[start:].strip()
    # A table that is filled while the program runs is no part of a signature.
    return [re.sub(r"=\{.*", "={}", name, flags=re.DOTALL) for name in ([*found, last] if last else found)]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
