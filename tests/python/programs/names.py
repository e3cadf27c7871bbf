"""What everything public of multiprocessing says that it is: a JSON object of texts.

The first argument names the module that is imported before the others.
"""

import importlib
import json
import sys

MODULES = (
    "connection context dummy dummy.connection forkserver heap managers pool popen_fork popen_forkserver popen_spawn_posix process"
    " queues reduction resource_sharer resource_tracker shared_memory sharedctypes spawn synchronize util"
)


def names():
    found = {}
    for name in sys.argv[1:2] + MODULES.split():
        module = importlib.import_module(f"multiprocessing.{name}")
        for key, thing in vars(module).items():
            # A method of the package's says whose code it is.
            if isinstance(thing, type) or type(thing) is type(names):
                found[f"{name}:{key}"] = f"{thing.__module__}:{thing.__qualname__}"
    return found


if __name__ == "__main__":
    print(json.dumps(names()))
