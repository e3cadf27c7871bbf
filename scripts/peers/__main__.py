"""Runs other projects' tests on maniple, each compared with the standard package on the same machine.

    .venv/bin/python scripts/peers [NAME ...]

Each peer (scripts/peers/registry.py) is installed by name into an environment of its own below build/peers. Its tests run
with the standard package first, once (build/peers/results/standard-PYTHON-NAME-VERSION.json; delete the file to have that made
again), then under ``python -m maniple``. A test that passes there and not here runs once more on both sides, with the others of
its kind alone: where the outcomes agree then, it is called flaky. What is left is *lost*, and the failure of this program.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent))

from places import BELOW, PYTHON, NotHere, environment, key_of, tests  # noqa: E402
from registry import PEERS, Peer  # noqa: E402
from trial import Results, Trial  # noqa: E402

RESULTS = BELOW / "results"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", help="peers, as `joblib` or `joblib-1.5.3`; all without")
    parser.add_argument("--list", action="store_true", help="say which there are")
    options = parser.parse_args()
    known = {key_of(peer) for peer in PEERS} | {peer.label for peer in PEERS}
    if options.list:
        print("\n".join(f"{key_of(peer)}: {peer.what}" for peer in PEERS))
        return 0
    if unknown := [name for name in options.names if name not in known]:
        print(f"no peer is called {', '.join(unknown)}; there are: {', '.join(sorted(known))}", file=sys.stderr)
        return 2
    chosen = [
        peer for peer in PEERS if not options.names or peer.label in options.names or key_of(peer) in options.names
    ]
    RESULTS.mkdir(parents=True, exist_ok=True)
    lines, total = [], {"passed": 0, "failed": 0, "skipped": 0}
    for peer in chosen:
        print(f"\n==== {key_of(peer)}: {peer.what}", flush=True)
        try:
            line, count = compare(peer)
        except NotHere as problem:
            line, count = f"{key_of(peer)}: NOT RUN: {problem}", {"skipped": 1}
        print(line, flush=True)
        lines.append(line)
        for word, number in count.items():
            total[word] += number
    print("\n==== peers on Python", PYTHON)
    for line in lines:
        print(f"  {line}")
    print(", ".join(f"{number} {word}" for word, number in total.items()))
    return 1 if total["failed"] or not total["passed"] else 0


def compare(peer: Peer) -> tuple[str, dict[str, int]]:
    """Run the peer on both packages; what is to be said of it, and how many tests passed, are lost, count for nothing."""
    started = time.monotonic()
    python = environment(peer)
    key = key_of(peer)
    trial = Trial(peer, python, tests(peer, python), BELOW / "logs" / f"{PYTHON}-{key}")
    kept = RESULTS / f"standard-{PYTHON}-{key}.json"
    if kept.exists():
        standard: Results = json.loads(kept.read_text())
        # It may be older than the list of what is left out.
        standard = {test: result for test, result in standard.items() if test not in peer.left_out}
    else:
        standard = trial.run(ours=False)
        if failed := [test for test in standard if standard[test]["outcome"] not in ("passed", "skipped")]:
            # A test that fails only on a busy machine is not one that fails.
            standard |= trial.run(ours=False, only=failed)
        kept.write_text(json.dumps(standard, indent=1))
    print(f"  standard package: {counted(standard)}", flush=True)
    maniple = trial.run(ours=True)
    print(f"  maniple: {counted(maniple)}", flush=True)
    differ = sorted(test for test in standard if standard[test]["outcome"] == "passed" and worse(maniple, test))
    flaky = []
    if differ:
        again = trial.run(ours=True, only=differ)
        still = [test for test in differ if worse(again, test)]
        base = trial.run(ours=False, only=still) if still else {}
        lost = [test for test in still if base.get(test, standard[test])["outcome"] == "passed"]
        flaky = [test for test in differ if test not in lost]
    else:
        lost = []
    report = {"lost": lost, "flaky": flaky, "standard": standard, "maniple": maniple}
    (RESULTS / f"maniple-{PYTHON}-{key}.json").write_text(json.dumps(report, indent=1))
    for test in flaky:
        print(f"  flaky: {test}")
    for test in lost:
        result = maniple.get(test, {"outcome": "not run", "text": ""})
        print(f"  LOST ({result['outcome']}): {test}")
        for line in last_lines(result["text"]):
            print(f"      {line}")
    passed = sum(result["outcome"] == "passed" for result in maniple.values())
    count = {"passed": passed, "failed": len(lost), "skipped": len(maniple) - passed - len(lost) if maniple else 0}
    count["skipped"] = max(count["skipped"], 0)
    if not any(result["outcome"] == "passed" for result in standard.values()):
        count["failed"] += 1
        lost = ["nothing passes with the standard package"]
    verdict = f"{key}: standard {counted(standard)}; maniple {counted(maniple)}; {len(flaky)} flaky, {len(lost)} lost"
    return f"{verdict} ({time.monotonic() - started:.0f} s)", count


def worse(results: Results, test: str) -> bool:
    return results.get(test, {}).get("outcome") != "passed"


def counted(results: Results) -> str:
    words: dict[str, int] = {}
    for result in results.values():
        words[result["outcome"]] = words.get(result["outcome"], 0) + 1
    return ", ".join(f"{words[word]} {word}" for word in sorted(words)) or "nothing ran"


def last_lines(text: str) -> list[str]:
    """The lines of a failure that say most: pytest's own start with an E."""
    lines = [line for line in text.splitlines() if line.strip()]
    marked = [line for line in lines if line.startswith("E ")]
    return (marked[-4:] or lines[-6:]) if lines else []


if __name__ == "__main__":
    sys.exit(main())
