"""torch.multiprocessing.spawn reports a worker that raised, and a worker that was killed."""

import os
import signal

import torch.multiprocessing as mp


def fail(rank):
    if rank == 1:
        raise ValueError("rank 1 gives up")


def die(rank):
    if rank == 0:
        os.kill(os.getpid(), signal.SIGKILL)


def main():
    for method in ("spawn", "fork", "forkserver"):
        try:
            mp.start_processes(fail, nprocs=2, start_method=method)
        except mp.ProcessRaisedException as error:
            assert "rank 1 gives up" in str(error)
        else:
            raise AssertionError("the error was not raised here")
        try:
            mp.start_processes(die, nprocs=2, start_method=method)
        except mp.ProcessExitedException as error:
            assert error.signal_name == "SIGKILL"
        else:
            raise AssertionError("the death was not told")


if __name__ == "__main__":
    main()
