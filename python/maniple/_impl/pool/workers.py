"""The processes of a pool, and the thread that keeps them.

The thread refers to the objects of this module and not to the `Pool`, so that a pool without references is collected.
"""

from __future__ import annotations

import os
import sys
import threading
import time

# `signal.getsignal` looks its result up in enumerations: a forked worker shares no page that this writes to.
from _signal import getsignal  # type: ignore[import-not-found]
from collections import deque
from collections.abc import Callable, Iterator
from itertools import repeat
from operator import methodcaller
from signal import SIG_IGN, SIGTERM, raise_signal
from weakref import ref

from ... import util
from ..._maniple import Hold, Hub, greenlets_sleep_by, interrupts, pool_is_terminated, serve, terminate_itself
from ...process import current_process
from ...reduction import DupFd
from ..compat.greenlets import threads_are_real
from ..start import imports_in_progress
from ..start.descriptors import EX_TEMPFAIL, close_number, explain_shortage
from ..start.shortage import advice, is_shortage, says_shortage
from ..sync.bells import SteadyEvent
from ..sync.thread_start import ThreadStart, start_assured
from .completions import Completions
from .external_tasks import ExternalTasks
from .feeders import Feeders
from .no_memory import NO_MEMORY
from .payload import cancelled, note_unsent_arguments
from .pending_callbacks import PendingCallbacks
from .results import complete
from .worker_main import ForkedMain, WorkerMain
from .worker_place import Place

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..start.surroundings import Surroundings
    from .worker_setup import WorkerSetup

__all__ = ["Workers", "worker"]


class WorkerHandles:
    """The descriptors of a worker's link, which its process inherits, or receives from the start method."""

    def __init__(self, fds: list[int], main: WorkerMain, place: Place | None = None) -> None:
        self.fds, self.main, self.place = fds, main, place
        self._owner = os.getpid()

    def __reduce__(self) -> Any:
        return _arrived, ([DupFd(fd) for fd in self.fds], self.main.given_at_start(), self.place)

    def close(self) -> None:
        # One step of the interpreter takes each out and closes it: no signal handler runs in between.
        deque(map(close_number, map(list.pop, repeat(self.fds, len(self.fds)))), 0)

    def __del__(self) -> None:
        # In a child that another thread has forked, the numbers may belong to other files by now. The end of the interpreter finds
        # no numbers; this module's names may be None by then.
        if self.fds and self._owner == os.getpid():
            self.close()


# Seconds after which the keeper retries after a shortage.
_AGAIN = Hub.AGAIN
# Calls the method in one step of the interpreter.
_begin_start: Callable[[Hub], tuple[int, list[int]] | None] = methodcaller("begin_start")
# Seconds that the keeper sleeps at a time if threads are greenlets.
_PAUSE = 0.01


def _arrived(copies: list[Any], given: dict[str, Any], place: Place | None) -> WorkerHandles:
    if given:
        from ..serialization.received import take

        take(given)
    return WorkerHandles([copy.detach() for copy in copies], WorkerMain(), place)


def worker(handles: WorkerHandles, initializer: Callable[..., object] | None, initargs: tuple[Any, ...]) -> None:
    """Run a worker process."""
    # A worker dies with its parent, and so do the workers of its own pools: so a worker may have children.
    current_process()._config["may_have_children"] = True
    fds, handles.fds = handles.fds, []
    place = handles.place
    handles.main.settle_in()
    inherited = getsignal(SIGTERM)
    if callable(inherited):
        from ..start.forked import end_after

        inherited = end_after(inherited, pool_is_terminated)

    def prepare() -> None:
        if place is not None:
            place.take()
        if initializer is not None:
            initializer(*initargs)

    try:
        ended = serve(fds, prepare)
        if ended == "unfit":
            raise SystemExit(1)
        if ended == "lacking":
            raise SystemExit(EX_TEMPFAIL)
        if ended == "closed" and place is not None:
            place.leave()
        if ended == "terminated" and not (callable(inherited) and getsignal(SIGTERM) is inherited):
            # End as if the parent had sent the signal. A handler that the process inherited by a fork belongs to the
            # parent, and does not run.
            if sys.platform == "win32":  # where a signal would end it with another exit code
                terminate_itself()
            raise_signal(SIGTERM)
    except KeyboardInterrupt:
        # The parent received the same Ctrl-C and handles it.
        raise SystemExit(1) from None
    util.debug("worker exiting")


def _warn(message: str, problem: BaseException) -> None:
    """Log a warning, also if the program's logging or standard error raises anything."""
    # Not `suppress`, for whose object there may be no memory.
    try:
        util.sub_warning(message, problem)
    except BaseException:
        pass


class Workers:
    """The processes of one pool."""

    #: the options of the pool that shape its workers; set before `start`
    setup: WorkerSetup | None = None
    #: the least number of workers (None: all), the seconds after which an idle worker ends, and the number of spare workers
    size: tuple[int | None, float, int] = None, 0.0, 0
    #: the number of workers that the pool may have later, if that is more than at its start
    most: int = 0

    def __init__(
        self,
        processes: int,
        make_process: Callable[..., Any],
        initializer: Callable[..., object] | None,
        initargs: tuple[Any, ...],
        maxtasksperchild: int | None,
        main: WorkerMain,
        limits: tuple[Any, ...] = (),
    ) -> None:
        if not threads_are_real():
            greenlets_sleep_by(time.sleep)
        # A weak reference, because the hub refers to `is_idle`.
        own = ref(self)

        def is_idle() -> bool:
            workers = own()
            return workers is None or workers.hub.is_idle()

        self._main = main.for_pool(is_idle)
        self._imports = imports_in_progress.of_this_thread()
        try:
            self.hub = Hub(processes, maxtasksperchild, self._main, True, *limits)
        except OSError as problem:
            self._explain(problem, 0, processes)
            raise
        self.make_process = make_process
        self._owner = os.getpid()
        self.initializer = initializer
        self.initargs = initargs
        self.maxtasksperchild = maxtasksperchild
        self.processes: list[Any] = []
        # Pipes to which programs of dead workers still write, and that have no reader yet.
        self._late: list[int] = []
        # The results of jobs whose callbacks are pending.
        self.results = PendingCallbacks(self._schedule_late)
        self.lock = threading.RLock()
        util.register_after_fork(self, Workers._free_lock)
        self.external = ExternalTasks(self.hub, self.results)
        self._keys: dict[int, Any] = {}
        # The chore that the keeper is doing for the hub.
        self._chore: tuple[str, int] | None = None
        # A result that is to be completed.
        self._ended: Any = None
        self._terminated = False
        #: whether all of the first workers and the keeper have started
        self.is_started = False
        #: the threads that are opening streams of `imap`
        self.opening: list[int] = []
        self._feeders = Feeders(self.hub.feed)
        self._completions = Completions()
        # The threads that start workers, and that pickle the items of calls for which no thread waits.
        self._starter: threading.Thread | None = None
        self._filler: threading.Thread | None = None
        # Whether `terminate` has done all of its work.
        self.is_over = False
        self._wanted = processes
        self.keeper = threading.Thread(target=self._keep, name="maniple-pool-keeper", daemon=True)
        self._keeper_start = ThreadStart(self.keeper)
        # Set when the keeper has seen all workers out. `Thread.join` is not enough: before Python 3.13, a thread counts as ended once an
        # exception of a signal handler has interrupted a `join`.
        self._all_ended = SteadyEvent()

    def _free_lock(self) -> None:
        # A forked child may still call methods, which raise an error because the pool belongs to its parent.
        self.lock._at_fork_reinit()  # type: ignore[attr-defined]  # what `threading` itself calls after a fork

    # ---- starting ----

    def start(self) -> None:
        """Start the first workers and then the keeper. After an error no worker is left."""
        started = 0
        try:
            while self.start_one() is not None:
                started += 1
            self._keeper_start()
            self.is_started = True
        except BaseException as problem:
            self._undo_start()
            # The error's traceback refers to this frame, and must not keep the pool's descriptors.
            del self.hub, self.external, self._feeders
            self._explain(problem, started, self._wanted)
            raise

    def _undo_start(self) -> None:
        """End the workers of a pool that was not started completely. If a signal handler interrupts it, it can be repeated."""
        self.hub.terminate(False, False)
        # The workers have done nothing yet, and may have a handler for SIGTERM that only records the signal.
        for process in list(self._keys.values()):
            process.kill()
        if not self._keeper_start.cancel():
            self.hub.kick()
            self._wait_for_keeper()
        for key, process in list(self._keys.items()):
            process.join()
            late = self.hub.exited(key, process.exitcode)
            if late is not None:
                close_number(late)
            self._keys.pop(key, None)
        self.processes.clear()

    @staticmethod
    def _explain(problem: BaseException, started: int, wanted: int) -> None:
        explain_shortage(
            problem,
            f"worker {started + 1} of {wanted} cannot be started"
            if started < wanted
            else "a pool's thread cannot be started",
        )

    def explain_unsent(self, error: Exception, args: Any, kwds: dict[str, Any]) -> None:
        """Add a note to the error of a call: which argument cannot be pickled, if that is why."""
        # A pool that lacks a resource, or that belongs to the parent process, has not tried it.
        if not isinstance(error, OSError | MemoryError) and os.getpid() == self._owner:
            note_unsent_arguments(error, args, kwds, self._main)

    def repopulate(self, processes: int) -> None:
        """Start workers until there are `processes` workers."""
        self._wanted = processes
        self.hub.resize(processes)
        self._start_due(in_call=True)
        self.hub.kick()  # the keeper retries failed starts

    def resize(self, processes: int) -> None:
        """Set the number of workers: the keeper starts workers that are missing, and surplus workers end after their tasks.

        No signal handler interrupts a start in the thread for that.
        """
        self._wanted = processes
        self.hub.resize(processes, True)
        self.hub.kick()

    def _start_due(self, in_call: bool = False) -> None:
        """Start the workers that are due now, until a start fails. `in_call`: in the thread of a call, which a signal may interrupt."""
        with Hold(self.lock):
            while True:
                try:
                    if self.start_one() is None:
                        return
                except BaseException as problem:
                    # The program's code may raise anything, also in the pool's threads. No signal handler runs there.
                    if in_call and interrupts(problem):
                        raise
                    _warn("could not start a worker: %s", problem)
                    if is_shortage(problem):
                        return  # the hub asks again

    def set_max_tasks(self, tasks: int | None) -> None:
        """Set the number of tasks after which a worker is replaced from now on."""
        self.hub.set_max_tasks(tasks)
        self.maxtasksperchild = tasks

    def threads(self) -> list[threading.Thread]:
        """Return the threads that serve the pool in this process."""
        return [self.keeper]

    def start_one(self) -> Any:
        """Start a worker if one is due, and add it to the pool; return its process, or None. An error is reported to the hub, too."""
        # Filled in the step of the interpreter that makes the descriptors.
        begun: list[tuple[int, list[int]] | None] = []
        handles: WorkerHandles | None = None
        try:
            # No frame keeps the hub: an error may be kept, and its traceback with it.
            begun.extend(map(_begin_start, (self.hub,)))
            if (start := begun[0]) is None:
                return None
            key, fds = start
            place, around = self._place_of(key)
            handles = WorkerHandles(fds, self._main, place)
            process = self.make_process(target=worker, args=(handles, self.initializer, self.initargs))
            process.name = process.name.replace("Process", "PoolWorker")
            process.daemon = True
            if around is not None:
                process._surroundings = around
            if not isinstance(self._main, ForkedMain):
                # The error also contains the output before the worker opens its link, for example of a failed import.
                hub, number = self.hub, key
                process._tap = fds[-1], lambda: hub.pass_on(number)
            process.start()
        except BaseException as problem:
            short = is_shortage(problem)
            why = f"{problem} ({advice(problem)})" if short else f"{type(problem).__name__}: {problem}"
            self.hub.start_failed(begun[0][0] if begun and begun[0] else None, why, short)
            raise
        finally:
            if handles is not None:
                handles.close()
            elif begun and begun[0]:
                deque(map(close_number, begun[0][1]), 0)
        util.debug("added worker")
        self.adopt(key, process)
        return process

    def _place_of(self, key: int) -> tuple[Place, Surroundings | None]:
        """Return the place of a worker that is about to start, and what its process changes."""
        spares = self.size[2]
        number, count = self.hub.number_of(key), max(self.most, self._wanted) + spares
        if (setup := self.setup) is None:
            return Place(number, count), None
        return setup.place(number, count), setup.surroundings(number, count)

    def adopt(self, key: int, process: Any) -> None:
        """Add a started worker to the pool."""
        while True:
            try:
                self._keys[key] = process
                # The hub watches the sentinel until `exited` is called.
                if not self.hub.adopt(key, process.pid, process.sentinel):
                    # The pool was terminated before the process started, and did not wait for that.
                    process.kill()
                    process.join()
                    self._keys.pop(key, None)
                elif process not in self.processes:
                    self.processes.append(process)
                return
            except MemoryError:
                time.sleep(_AGAIN)  # the worker runs: without the retry its end would never be detected

    # ---- keeping ----

    def _keep(self) -> None:
        imports_in_progress.keep(self._imports)
        try:
            while True:
                try:
                    self._do_chores()
                    return
                except BaseException as problem:
                    # A lack of memory, or the program's code. Without its keeper, the pool would let its callers wait forever.
                    time.sleep(_AGAIN)
                    try:
                        _warn("a pool's thread repeats a step: %s", problem)
                    except NO_MEMORY:
                        pass
        finally:
            imports_in_progress.keep(frozenset())
            self._all_ended.set()

    def _do_chores(self) -> None:
        alone = threads_are_real()
        while True:
            patience = 3600.0 if alone else 0.001
            if self._late:
                self._read_late()
            if self._late or self.results.is_due_again:
                patience = min(patience, _AGAIN)
            if self._ended is not None:
                self._pass_on()
            # Repeat an interrupted chore.
            chore, number = self._chore = self._chore or self.hub.keep(patience)
            self._pass_on()
            if chore == "idle" and not alone:
                time.sleep(_PAUSE)  # yields to other greenlets
            if chore == "start":
                self._starter = self._helper(self._serve_starts, "starter", alone)
            elif chore == "end":
                self._end_due()
            elif chore == "reap":
                while not self._reap(number):
                    time.sleep(_AGAIN)  # a lack of memory
            elif chore == "completed":
                self._ended, self._chore = self.results.ended(number), None
                self._pass_on()
            elif chore == "fill":
                self._filler = self._helper(self.hub.fill, "filler", alone)
            elif chore == "done":
                self._feeders.end()
                for helper in (self._filler, self._starter):
                    if helper is not None:
                        helper.join(_AGAIN)  # it ends now, unless code of the program runs in it
                if self._late:
                    self._read_late()
                self._main.end_pool()
                self._completions.end(lambda: self._terminated)
                # From here on the threads that enter results complete them.
                self.results.over = True
                self._complete_late()
                return
            self._chore = None

    def _pass_on(self) -> None:
        """Have the results completed whose calls have ended. The keeper repeats the call if it raises MemoryError."""
        while True:
            if self._ended is None:
                self._ended = self.results.one_entered_late()
            if self._ended is None:
                return
            self._completions.add(self._ended)
            self._ended = None

    @staticmethod
    def _helper(work: Callable[[bool], object], name: str, alone: bool) -> threading.Thread | None:
        """Start a thread for work that may run code of the program. If there can be no such thread, the keeper does the work."""
        if alone:
            helper = threading.Thread(target=work, args=(True,), name=f"maniple-pool-{name}", daemon=True)
            try:
                start_assured(helper)
            except (MemoryError, RuntimeError):
                pass
            else:
                return helper
        work(False)
        return None

    def _serve_starts(self, lingers: bool) -> None:
        """Start workers when they are due; a thread that `lingers` waits for further starts."""
        if lingers:
            imports_in_progress.keep(self._imports)
        try:
            while self.hub.next_starts(lingers):
                self._start_due()
        except BaseException as problem:
            # A lack of memory. The keeper calls this again, or starts another thread for it.
            _warn("a pool's thread ends: %s", problem)
            time.sleep(_AGAIN)
            self.hub.leave_starts()
        finally:
            if lingers:
                imports_in_progress.keep(frozenset())

    def _schedule_late(self) -> None:
        if self.results.over:
            self._complete_late()
        else:
            self.hub.kick()

    def _complete_late(self) -> None:
        while (result := self.results.one_entered_late()) is not None:
            complete(result)

    def _reap(self, key: int) -> bool:
        """Reap a worker that has ended; return False if a shortage prevents that now."""
        try:
            process = self._keys.get(key)
            if process is not None:
                process.join()
                if process in self.processes:
                    self.processes.remove(process)
            code, said = None if process is None else process.exitcode, self.hub.last_words(key)
            if code and code != EX_TEMPFAIL and said is not None and says_shortage(said):
                code = EX_TEMPFAIL  # the worker could not set the exit code itself
            late = self.hub.exited(key, code)
            self._keys.pop(key, None)
        except (MemoryError, OSError) as problem:
            util.sub_warning("could not reap a worker yet: %s", problem)
            return False
        if late is not None:
            self._late.append(late)
        return True

    def _read_late(self) -> None:
        """Forward the standard error of programs that dead workers have started."""
        if sys.platform == "win32":
            from ..._maniple import forward_until_closed as forward
        else:
            from ..start.late_output import forward

        while self._late:
            try:
                forward(self._late[-1])
            except (MemoryError, OSError, RuntimeError) as problem:
                util.sub_warning("could not read a dead worker's standard error yet: %s", problem)
                return
            self._late.pop()

    # ---- ending ----

    def feeder(self, job: int, iterator: Iterator[Any], *terms: Any) -> threading.Thread | None:
        """Have a thread feed the stream of `job`; return it if the caller has to start it. `terms` has the terms of the call, if any."""
        return self._feeders.take(job, iterator, False, *terms)

    def close(self) -> None:
        """Accept no more calls."""
        if (external := vars(self).get("external")) is not None:  # a pool whose start has failed has none
            external.close()

    def terminate(self) -> None:
        """Drop all work, end all processes, and wait for them."""
        if os.getpid() != self._owner:
            # A forked child has a copy of the object, but the pool is its parent's.
            return
        util.debug("terminating pool")
        if not self.is_started:
            # A signal handler has interrupted the start, or what undoes it. No keeper sees the workers out.
            if hasattr(self, "hub"):
                self._undo_start()
            self.is_over = True
            return
        handler = getsignal(SIGTERM)
        # Forked workers have this process's handlers. If this process ignores the signal, all workers do.
        self.hub.terminate(handler == SIG_IGN, isinstance(self._main, ForkedMain) and callable(handler))
        self._terminated = True
        self._end_due()
        self.hub.kick()
        self._wait_for_keeper()
        self.external.end(cancelled())
        self.is_over = True

    def _end_due(self) -> None:
        """Send the signals that are due to the workers of a terminated pool."""
        while (end := self.hub.next_end()) is not None:
            key, how = end
            process = self._keys.get(key)
            if process is not None and process.exitcode is None:
                getattr(process, how)()

    def join(self, timeout: float | None = None) -> bool:
        """Wait until all processes have ended, or until the time limit; return whether they have ended."""
        if not self._terminated and (self.hub.is_making_tasks() or threading.get_ident() in self.opening):
            raise RuntimeError(
                "join() would wait forever: this signal handler has interrupted a call that submits its items, "
                "which continues when the handler returns; terminate() the pool, or join it after the handler"
            )
        return self._wait_for_keeper(timeout)

    # A default, because a module that the interpreter has cleared has no names.
    def _wait_for_keeper(
        self, timeout: float | None = None, is_finalizing: Callable[[], bool] = sys.is_finalizing
    ) -> bool:
        """Wait until the keeper has seen all workers out, and has ended."""
        if is_finalizing():
            # The pool was made so late, in a function of `atexit`, that no function of `atexit` ends it. The keeper runs no more; the
            # kernel ends the workers with this process.
            return True
        # A callback may end the pool, and so may what a start calls.
        if threading.current_thread() not in (self.keeper, self._completions.thread, self._starter):
            if os.getpid() == self._owner and not self._all_ended.wait(timeout):
                return False
            # From here on it only returns.
            self.keeper.join()
        return True
