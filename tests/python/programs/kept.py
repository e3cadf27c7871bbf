"""A module with a state, for `by_value.py`."""

COUNT = 0


def counting():
    def count(_):
        global COUNT
        COUNT += 1
        return COUNT

    return count
