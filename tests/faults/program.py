"""The program in which calls fail: does one operation as often as its arguments say, and prints the outcome.

    python program.py CONTROL PACKAGE OPERATION METHOD

`CONTROL` is the descriptor of a socket. The keeper's end is in `walk.py`; this end's part is, each line of it JSON:

    set up, act, tear down; an outcome      the keeper looks what the program holds (`rest` as often as it likes)
    `go`: set up, act; an outcome           it looks again: so much may be held from now on
    `act`: act; an outcome                  and so on, with and without faults
    `renew`: what is the operation's own is made anew
    `end`: tear down; an outcome            it looks for the last time; the line's end is the program's end
"""

from __future__ import annotations

import faulthandler
import gc
import importlib
import json
import os
import signal
import socket
import sys
import traceback
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "python")]

if __name__ == "__main__":
    # As the first thing, so that this descriptor has its number before anything else could have it.
    CONTROL = 250
    os.dup2(int(sys.argv[1]), CONTROL, inheritable=False)
    os.close(int(sys.argv[1]))


def main() -> None:
    from gate import put_up
    from operations import OPERATIONS
    from watched import end_with_parent

    end_with_parent()
    package, name, method = sys.argv[2:]
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    control = socket.socket(fileno=CONTROL)
    put_up(control)
    mp = importlib.import_module(package)
    made = OPERATIONS[name](mp, method)
    lines = control.makefile("rw")

    def say(**what: Any) -> None:
        gc.collect()
        lines.write(json.dumps(what) + "\n")
        lines.flush()

    def heard() -> str:
        return lines.readline().strip()

    # Once without a fault, which starts the helpers that stay.
    made.set_up()
    first = outcome_of(made)
    made.tear_down()
    say(**first)
    while heard() == "rest":
        say()
    made.set_up()
    say(**outcome_of(made))
    while (command := heard()) != "end":
        if command == "renew":
            made.renew()
        say(**(outcome_of(made) if command == "act" else {}))
    try:
        made.tear_down()
    except Exception as e:
        say(error=type(e).__name__, codes=[], text="".join(traceback.format_exception(e)))
    else:
        del made
        say()
    while heard() == "rest":
        say()


def outcome_of(made: Any) -> dict[str, Any]:
    try:
        value = made.act()
    except Exception as e:
        return {"error": type(e).__name__, "codes": codes_of(e), "text": "".join(traceback.format_exception(e))}
    if value != made.expected:
        return {"wrong": short(value)}
    return {"right": True}


def codes_of(error: BaseException) -> list[int]:
    """The error numbers of an error and of those that it came from."""
    found, queue = [], [error]
    seen: set[int] = set()
    while queue:
        one = queue.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        if isinstance(one, OSError) and one.errno is not None:
            found.append(one.errno)
        queue += [other for other in (one.__cause__, one.__context__) if other is not None]
        queue += [argument for argument in one.args if isinstance(argument, BaseException)]
    return found


def short(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 300 else f"{text[:200]} ... {text[-60:]}"


if __name__ == "__main__":
    main()
