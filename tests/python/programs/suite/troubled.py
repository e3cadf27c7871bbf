"""Tests of which each does one thing that a runner of tests has to notice; test_cpython_runner.py says which."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
import unittest
from pathlib import Path

OURS = multiprocessing.__name__ != "multiprocessing"
# Beside this process's folder of files, which the next process of the run does not have.
ONCE = Path(os.environ["TMPDIR"]).parent.parent / "once"


def sleep_long():
    time.sleep(600)


class Plain(unittest.TestCase):
    def test_passes(self):
        pass

    def test_fails(self):
        self.assertEqual(1, 2, "one is not two")

    def test_fails_in_a_part(self):
        for number in range(3):
            with self.subTest(number=number):
                self.assertNotEqual(number, 1)

    def test_raises(self):
        raise LookupError("nothing found")

    def test_is_skipped_in_a_part(self):
        with self.subTest(part=1):
            self.skipTest("this part alone")

    def test_is_skipped_everywhere(self):
        self.skipTest("not on any system")

    @unittest.skipIf(OURS, "only with the standard package")
    def test_is_skipped_here_alone(self):
        pass

    if not OURS:

        def test_is_missing_here(self):
            pass

    def test_fails_once(self):
        if OURS and not ONCE.exists():
            ONCE.touch()
            self.fail("the first time")


class Ordered(unittest.TestCase):
    """The second test skips itself after the first, with any package; alone it passes."""

    ran = False

    def test_a_runs(self):
        Ordered.ran = True

    def test_b_is_skipped_after_it(self):
        if Ordered.ran:
            self.skipTest("the other has run")


class Hanging(unittest.TestCase):
    def test_a_before(self):
        pass

    def test_b_hangs_in_a_child(self):
        process = multiprocessing.get_context("fork").Process(target=sleep_long)
        process.start()
        process.join()

    def test_c_after(self):
        pass


class Crashing(unittest.TestCase):
    def test_a_is_killed(self):
        os.kill(os.getpid(), signal.SIGKILL)

    def test_b_exits(self):
        os._exit(3)

    def test_c_passes(self):
        pass

    def test_d_comes_back_in_a_forked_child(self):
        if pid := os.fork():
            self.assertEqual(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), 70)


class BadFixture(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        raise OSError("no such fixture")

    def test_never_begins(self):
        pass


class Leaving(unittest.TestCase):
    def test_leaves_a_process(self):
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)


class Meaning(unittest.TestCase):
    def test_ctrl_c_is_heard(self):
        self.assertIs(signal.getsignal(signal.SIGINT), signal.default_int_handler)
        self.assertEqual(signal.pthread_sigmask(signal.SIG_BLOCK, []), set())

    def test_it_is_the_package_under_test(self):
        self.assertIs(multiprocessing.Process, sys.modules[multiprocessing.__name__].Process)
        code = "import multiprocessing.pool, sys; print(multiprocessing.__name__, multiprocessing.pool.__name__)"
        for flags in ([], ["-I"], ["-E", "-S"]):
            said = subprocess.run([sys.executable, *flags, "-c", code], capture_output=True, text=True, check=True)
            name = multiprocessing.__name__
            self.assertEqual(said.stdout.split(), [name, f"{name}.pool"])
