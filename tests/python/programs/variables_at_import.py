"""Whether the variables of a pool's workers are set when the main module is loaded, and in which directory that happens."""

import os
import sys

import maniple

AT_IMPORT = os.environ.get("OMP_NUM_THREADS"), os.environ.get("SETUP_NEW"), os.getcwd()


def look():
    return (*AT_IMPORT, os.getcwd())


if __name__ == "__main__":
    os.environ.pop("OMP_NUM_THREADS", None)
    context = maniple.get_context(sys.argv[1])
    with context.Pool(1, threads_per_worker=2, env={"SETUP_NEW": "yes"}, cwd="..") as pool:
        print(*pool.apply(look))
