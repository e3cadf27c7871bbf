"""A pytest plugin that keeps `backend/` on the path of programs whose environment a test of joblib makes itself."""

import os
import subprocess
from pathlib import Path

BACKEND = str(Path(__file__).resolve().parent.parent / "backend")


class Popen(subprocess.Popen):
    def __init__(self, *args, env=None, **kwds):
        if env is not None and BACKEND not in env.get("PYTHONPATH", ""):
            env = {**env, "PYTHONPATH": os.pathsep.join(filter(None, [BACKEND, env.get("PYTHONPATH")]))}
        super().__init__(*args, env=env, **kwds)


subprocess.Popen = Popen
