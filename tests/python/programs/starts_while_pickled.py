"""An argument whose pickling starts a process of its own; what comes after it still belongs to the outer child."""

import sys

import maniple


def name(value):
    return value


def say(queue, word):
    queue.put(word)


class Starts:
    """Pickled as a word, once a child has run."""

    def __init__(self, context, queue):
        self.context, self.queue = context, queue

    def __reduce__(self):
        inner = self.context.Process(target=say, args=(self.queue, "inner"))
        inner.start()
        inner.join()
        return name, (f"inner ended with {inner.exitcode}",)


def outer(word, queue):
    queue.put(word)


def main(method):
    context = maniple.get_context(method)
    queue = context.SimpleQueue()
    child = context.Process(target=outer, args=(Starts(context, queue), queue))
    child.start()
    child.join()
    print(child.exitcode, queue.get(), queue.get())


if __name__ == "__main__":
    main(sys.argv[1])
