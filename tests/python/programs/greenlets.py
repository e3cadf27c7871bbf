"""A program whose threads are greenlets: gevent, or eventlet, named by the first argument; the second is the start method."""

import sys

if sys.argv[1] == "gevent":
    from gevent import monkey

    monkey.patch_all()
else:
    import eventlet

    eventlet.monkey_patch()

import faulthandler
import os
import threading
import time

import maniple


def square(number):
    return number * number


def put(queue, count):
    for number in range(count):
        queue.put(number)


def echo(connection):
    connection.send(connection.recv())


def add(lock, value):
    for _ in range(50):
        with lock:
            value.value += 1


def run(context, target, *args):
    process = context.Process(target=target, args=args)
    process.start()
    return process


if __name__ == "__main__":
    # Writes where the program is if it does not end.
    faulthandler.dump_traceback_later(60, exit=True)
    context = maniple.get_context(sys.argv[2])
    print("process", run(context, square, 1).join(), end=" ")
    sleeper = run(context, time.sleep, 60)
    sleeper.join(0.1)
    print(sleeper.is_alive(), end=" ")
    sleeper.terminate()
    sleeper.join()
    print(sleeper.exitcode)

    for queue in context.Queue(), context.SimpleQueue():
        writer = run(context, put, queue, 50)
        print("queue", sum(queue.get() for _ in range(50)), writer.join())

    ours, theirs = context.Pipe()
    other = run(context, echo, theirs)
    ours.send(b"x" * 100_000)
    print("pipe", len(ours.recv()), other.join())

    lock, value = context.Lock(), context.Value("i", 0)
    for process in [run(context, add, lock, value) for _ in range(2)]:
        process.join()
    print("lock", value.value)

    told, heard = [], threading.Event()
    with context.Pool(2) as pool:
        # The first workers have not started yet, and the input is longer than what may be in progress.
        print(
            "stream",
            sum(pool.imap(square, map(int, range(5000)))),
            sum(pool.imap_unordered(square, map(int, range(5000)))),
        )
        # A keeper that cannot run detects no death.
        lost = pool.apply_async(os._exit, (3,))
        try:
            lost.get()
        except maniple.WorkerLostError:
            print("lost", sum(pool.map_async(square, range(20000)).get()))
        print("pool", pool.map(square, range(5)), list(pool.imap(square, map(int, range(5)))))
        result = pool.apply_async(square, (9,), callback=lambda number: (told.append(number), heard.set()))
        print(heard.wait(20), told, result.get())  # greenlets take turns while this one waits
        pool.close()
        pool.join()
    with maniple.ProcessPoolExecutor(2, mp_context=context) as executor:
        print("executor", executor.submit(square, 3).result(), sum(executor.map(square, range(1000))))
