"""What is in shared memory for tensors on their way is gone when nothing holds them, with both of torch's strategies."""

import gc
import os
import time

import torch
import torch.multiprocessing as mp


def fill(tensor):
    tensor.fill_(4)
    return tensor.add(1)


def take(queue, event):
    queue.get()[0][:] = 4
    event.set()


def send_twice(queue, event):
    tensor = torch.ones(5, 5)
    queue.put(tensor)
    queue.put(tensor)
    # What was sent is this process's until the other side has it.
    event.wait()


def in_shared_memory(pids):
    gc.collect()
    return [name for name in os.listdir("/dev/shm") if any(name.startswith(f"torch_{pid}_") for pid in pids)]


def assert_gone(pids):
    for _ in range(100):
        if not in_shared_memory(pids):
            return
        time.sleep(0.1)
    raise AssertionError(f"left in shared memory: {in_shared_memory(pids)}")


def one_storage(ctx):
    tensor = torch.randn(5, 5)
    queue = ctx.Queue()
    queue.put([tensor.storage(), tensor, tensor[2], tensor[:, 1]])
    storage, *tensors = queue.get(timeout=60)
    assert storage._cdata == tensor.storage()._cdata
    assert all(came.storage()._cdata == storage._cdata for came in tensors)


def while_in_the_queue(ctx):
    queue = ctx.Queue()
    queue.put(torch.zeros(4))
    while queue.empty():
        time.sleep(0.01)
    if mp.get_sharing_strategy() == "file_system":
        assert in_shared_memory([os.getpid()])
    queue.get(timeout=60)


def processes(ctx, pids):
    tensor = torch.zeros(5, 5)
    for target in (take, send_twice):
        queue, event = ctx.Queue(), ctx.Event()
        if target is take:
            queue.put([tensor, tensor[:, 1]])
        process = ctx.Process(target=target, args=(queue, event))
        process.start()
        pids.append(process.pid)
        if target is take:
            assert event.wait(60) and tensor.eq(4).all()
        else:
            first, second = queue.get(timeout=60), queue.get(timeout=60)
            assert first.eq(1).all() and first.storage().data_ptr() == second.storage().data_ptr()
            del first, second
            event.set()
        process.join()
        assert process.exitcode == 0


def pool(ctx, pids):
    with ctx.Pool(2) as workers:
        pids += [worker.pid for worker in workers._pool]
        sent = [torch.zeros(2, 2) for _ in range(4)]
        came = workers.map(fill, sent, 1)
        assert all(tensor.eq(4).all() for tensor in sent) and all(tensor.eq(5).all() for tensor in came)
        workers.close()
        workers.join()


def main():
    # A forked child has no use for the threads of its parent.
    torch.set_num_threads(1)
    for strategy in ("file_descriptor", "file_system"):
        mp.set_sharing_strategy(strategy)
        for method in ("fork", "spawn"):
            ctx, pids = mp.get_context(method), [os.getpid()]
            one_storage(ctx)
            assert_gone(pids)
            while_in_the_queue(ctx)
            assert_gone(pids)
            processes(ctx, pids)
            assert_gone(pids)
            pool(ctx, pids)
            assert_gone(pids)


if __name__ == "__main__":
    main()
