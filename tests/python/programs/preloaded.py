"""A main module that, where it is imported, does something to the process that imports it; the first argument says what.

Prints in a child of the fork server: which process imported the module, and how many threads the server has.
"""

import os
import sys
import threading
import time

import maniple

importer = os.getpid()

if __name__ != "__main__":
    what = sys.argv[1]
    if what == "thread":
        threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
    elif what == "fork":
        os.fork = lambda: sys.exit("replaced")
    elif what == "lock":
        made = threading.Lock
        threading.Lock = lambda: made()
    elif what == "signals":
        import signal

        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.setitimer(signal.ITIMER_REAL, 1.0)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
        os.environ["LEFT_BY_MAIN"] = "1"
        threading.Thread(target=time.sleep, args=(600,), daemon=True).start()


def report(queue):
    import signal

    server = os.getppid()
    threads = len(os.listdir(f"/proc/{server}/task"))
    masked = signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set() or sys.argv[1] == "signals"
    imported_by = "the server" if importer == server else "the child" if importer == os.getpid() else "?"
    queue.put((imported_by, threads, masked, signal.getsignal(signal.SIGINT) is signal.default_int_handler))


if __name__ == "__main__":
    maniple.set_forkserver_preload(["__main__"])
    context = maniple.get_context("forkserver")
    queue = context.Queue()
    for pause in (0, 1.5) if sys.argv[1] == "signals" else (0,):
        time.sleep(pause)
        process = context.Process(target=report, args=(queue,))
        process.start()
        told = queue.get(timeout=20)
        process.join()
    print(*told)
    print(process.exitcode)
