"""Reports, from inside the twin, what `multiprocessing` is: in this process and in a child of each start method.

    TWIN [-I | -E -S] proof.py RESULT METHOD ...

RESULT becomes a JSON object: where -> {module of the standard name: [its own name, its file]}.
"""

import json
import os
import sys


def modules():
    found = {}
    for name, module in sorted(sys.modules.items()):
        if name.partition(".")[0] == "multiprocessing":
            found[name] = [module.__name__, os.path.realpath(getattr(module, "__file__", None) or "")]
    return found


def report(path):
    import multiprocessing.connection  # noqa: F401

    with open(path, "w") as file:
        json.dump(modules(), file)


def main():
    import multiprocessing
    from importlib import import_module

    result, *methods = sys.argv[1:]
    folder = os.path.dirname(os.path.abspath(multiprocessing.__file__))
    for entry in sorted(os.listdir(folder)):
        stem, ending = os.path.splitext(entry)
        # Without an underscore: those are the package's own, under no standard name.
        if ending == ".py" and not stem.startswith("_") and not stem.endswith("_win32"):
            import_module("multiprocessing." + stem)
    found = {"parent": modules()}
    for method in methods:
        path = f"{result}.{method}"
        process = multiprocessing.get_context(method).Process(target=report, args=(path,))
        process.start()
        process.join(60)
        if process.exitcode != 0:
            process.kill()
            found[method] = {"child": [f"exit code {process.exitcode}", ""]}
            continue
        with open(path) as file:
            found[method] = json.load(file)
    with open(result, "w") as file:
        json.dump(found, file)


if __name__ == "__main__":
    main()
