"""Runs in the twin: lists the tests of a module, or runs some of them in this process.

    TWIN -m maniple_suite_worker ORDER

ORDER is a JSON file: `module`, `events` (a file to append to) and, to run them, `tests` (`Class.method`). Each event is a line
of JSON. It is the `__main__` of a package, which a spawned child does not import again.
"""

import json
import os
import sys


def main():
    with open(sys.argv[1]) as file:
        order = json.load(file)
    set_signals()
    tell = Events(order["events"])
    tests = collect(order["module"], tell)
    if "tests" not in order:
        tell(kind="collected", tests=list(tests))
        return
    run([tests[name] for name in order["tests"] if name in tests], tell)
    tell(
        kind="end",
        missing=[name for name in order["tests"] if name not in tests],
        foreign=foreign_modules(order["package"]),
        altered=sys.modules["test.support"].environment_altered if "test.support" in sys.modules else False,
    )


def set_signals():
    """Undo what this process inherits: a shell without job control starts what it puts aside with Ctrl-C ignored."""
    import faulthandler
    import signal

    faulthandler.enable(file=2)
    if sys.platform == "win32":
        return
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    faulthandler.register(signal.SIGRTMIN + 9, file=2, all_threads=True)


class Events:
    """Appends events to a file, from this process alone: a forked child that comes back into the runner ends at once."""

    def __init__(self, path):
        self.file = open(path, "a")
        self.process = os.getpid()

    def __call__(self, **event):
        if os.getpid() != self.process:
            os._exit(70)
        self.file.write(json.dumps(event) + "\n")
        self.file.flush()


def collect(module, tell):
    """The tests of a module, as `Class.method` -> test case."""
    import importlib
    import unittest

    try:
        loaded = importlib.import_module(module)
    except unittest.SkipTest as skip:
        tell(kind="module skipped", reason=str(skip))
        return {}
    found = {}
    loader = unittest.TestLoader()
    for thing in vars(loaded).values():
        if isinstance(thing, type) and issubclass(thing, unittest.TestCase) and thing.__module__ == module:
            for method in loader.getTestCaseNames(thing):
                found[f"{thing.__name__}.{method}"] = thing(method)
    return found


def run(tests, tell):
    import unittest

    class Result(unittest.TestResult):
        """Tells each outcome as it is known. An outcome of a fixture has no test: it goes under the fixture's own name."""

        def startTest(self, test):
            super().startTest(test)
            tell(kind="start", test=name_of(test))

        def stopTest(self, test):
            super().stopTest(test)
            tell(kind="stop", test=name_of(test))

        def addSuccess(self, test):
            self.tell(test, "passed")

        def addError(self, test, error):
            self.tell(test, "error", self._exc_info_to_string(error, test))

        def addFailure(self, test, error):
            self.tell(test, "failed", self._exc_info_to_string(error, test))

        def addSkip(self, test, reason):
            # A part of a test that skips itself comes as a test of its own.
            self.tell(getattr(test, "test_case", test), "skipped", reason)

        def addExpectedFailure(self, test, error):
            self.tell(test, "passed")

        def addUnexpectedSuccess(self, test):
            self.tell(test, "failed", "passes, but is marked as one that fails")

        def addSubTest(self, test, subtest, error):
            if error is not None:
                text = f"{subtest}\n{self._exc_info_to_string(error, test)}"
                self.tell(test, "failed", text)

        def tell(self, test, outcome, text=""):
            fixture = not hasattr(test, "_testMethodName")
            name = test.id() if fixture else name_of(test)
            tell(kind="outcome", test=name, outcome=outcome, text=text, fixture=fixture)

    unittest.TestSuite(tests).run(Result())


def name_of(test):
    return f"{type(test).__name__}.{test._testMethodName}"


def foreign_modules(package):
    """What goes by the standard package's name here without being `package`'s."""
    return sorted(
        f"{name} is {module.__name__} ({getattr(module, '__file__', None)})"
        for name, module in sys.modules.items()
        if name.partition(".")[0] == "multiprocessing" and module.__name__.partition(".")[0] != package
    )


if __name__ == "__main__":
    main()
