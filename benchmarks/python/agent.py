"""One library's process: waits for "run this case once", answers with seconds.

The runner starts one agent per library and lets one of them work at a time.
Requests and answers are JSON, one a line, on the descriptors that were
standard input and output; what a library prints goes to standard error.
"""

from __future__ import annotations

import os
import sys


def answer(request: dict, library: object) -> dict:  # type: ignore[type-arg]
    """Run a case once: seconds per unit, or a status that says why there are none."""
    import tasks
    from adapters.base import NotOffered
    from cases import BY_KEY
    from stage import Setting, Stage, WrongAnswer

    stage = Stage(library, Setting(**request["setting"]))  # type: ignore[arg-type]
    try:
        BY_KEY[request["case"]].run(stage)
    except NotOffered as why:
        return {"status": "absent", "why": str(why)}
    except WrongAnswer as why:
        return {"status": "wrong", "why": str(why)}
    except Exception as why:  # an exception of a library is its result in this case
        return {"status": "error", "why": f"{type(why).__name__}: {why}"}
    finally:
        tasks.forget_arrays()
    return {"status": "ok", "seconds": stage.seconds / stage.units, "units": stage.units}


def main(name: str) -> None:
    import json

    # The workers must neither read the requests nor write into the answers.
    requests = os.fdopen(os.dup(0), "r")
    answers = os.fdopen(os.dup(1), "w")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)

    def say(message: dict) -> None:  # type: ignore[type-arg]
        answers.write(json.dumps(message) + "\n")
        answers.flush()

    try:
        import adapters

        library = adapters.load(name)
        say({"status": "ready", "version": library.version()})
    except Exception as why:
        say({"status": "unavailable", "why": f"{type(why).__name__}: {why}"})
        return
    for line in requests:
        say(answer(json.loads(line), library))


if __name__ == "__main__":
    main(sys.argv[1])
