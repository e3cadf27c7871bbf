"""The error of a program whose main module starts processes, or sets the start method, each time it is loaded.

Children of the start methods spawn and forkserver load the main module, so they would start children as well. A worker of a pool reports
this error by its exit code alone: the pool raises it once, instead of each worker.
"""

from __future__ import annotations

__all__ = ["EXIT_CODE", "advice", "error_in_child", "is_reason"]

#: the exit code of such a worker: `EX_CONFIG`
EXIT_CODE = 78

_raised: list[BaseException] = []


def advice() -> str:
    """Return a text that says what to do about it."""
    return """
        A program that uses the spawn or forkserver start method must not start
        processes at the top level of its main module.  Put them under

            if __name__ == "__main__":
                ...                 # first freeze_support(), if the program is frozen

        so that a child can load the module without running the program.
        """


def error_in_child(what: str) -> RuntimeError:
    """Return the error of a child in which the main module does `what`."""
    error = RuntimeError(f"""
        The program {what} while this process is still loading the
        program's main module. Each child would start another child.
{advice()}""")
    _raised.append(error)
    return error


def is_reason(problem: BaseException | None) -> bool:
    """Return whether `problem`, which the main module raised, is such an error, or follows from one."""
    while problem is not None:
        if any(problem is error for error in _raised):
            return True
        problem = problem.__cause__ or problem.__context__
    return False
