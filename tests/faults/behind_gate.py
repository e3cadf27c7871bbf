"""Starts another program behind a gate.

python behind_gate.py CONTROL PROGRAM ARGUMENT...

The program has the line to the keeper as descriptor `gate.CONTROL`.
"""

import os
import socket
import sys

# As the first thing, so that this descriptor has its number before anything else could have it.
os.dup2(int(sys.argv[1]), 250, inheritable=True)
os.close(int(sys.argv[1]))

from gate import CONTROL, put_up  # noqa: E402

assert CONTROL == 250
control = socket.socket(fileno=CONTROL)
put_up(control)
control.detach()
os.execv(sys.argv[2], sys.argv[2:])
