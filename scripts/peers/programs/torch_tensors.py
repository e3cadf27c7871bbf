"""Tensors through queues, pipes, pools and processes of torch.multiprocessing: one memory, seen from both sides."""

import torch
import torch.multiprocessing as mp


def add_one(tensor):
    tensor += 1


def double(tensor):
    return tensor * 2


def echo(inbox, outbox):
    while (item := inbox.get()) is not None:
        item.mul_(3)
        outbox.put(item)
    # What was sent must have been taken before this process may go.
    inbox.get()


def train(rank, model, steps):
    for _ in range(steps):
        with torch.no_grad():
            for weight in model.parameters():
                weight.add_(1.0)


def report(rank, results):
    results[rank] = rank * 10


def main():
    # A forked child has no use for the threads of its parent.
    torch.set_num_threads(1)
    for method in ("fork", "spawn"):
        ctx = mp.get_context(method)
        shared = torch.zeros(100_000).share_memory_()
        process = ctx.Process(target=add_one, args=(shared,))
        process.start()
        process.join()
        assert process.exitcode == 0 and shared.sum() == 100_000, (method, process.exitcode, shared.sum())

        inbox, outbox = ctx.Queue(), ctx.Queue()
        process = ctx.Process(target=echo, args=(inbox, outbox))
        process.start()
        sent = [torch.full((5000,), float(n)) for n in range(5)]
        for tensor in sent:
            inbox.put(tensor)
        came = [outbox.get(timeout=60) for _ in sent]
        assert [float(tensor[0]) for tensor in came] == [0.0, 3.0, 6.0, 9.0, 12.0], method
        # Both sides have the same memory.
        assert [float(tensor[0]) for tensor in sent] == [0.0, 3.0, 6.0, 9.0, 12.0], method
        inbox.put(None)
        inbox.put(None)
        process.join()
        assert process.exitcode == 0

        with ctx.Pool(2) as pool:
            got = pool.map(double, [torch.arange(3000) + n for n in range(6)])
        assert [int(tensor[0]) for tensor in got] == [0, 2, 4, 6, 8, 10], method

        model = torch.nn.Linear(10, 10)
        with torch.no_grad():
            for weight in model.parameters():
                weight.zero_()
        model.share_memory()
        workers = [ctx.Process(target=train, args=(rank, model, 5)) for rank in range(2)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        assert [worker.exitcode for worker in workers] == [0, 0]
        assert float(model.weight[0, 0]) > 5.0

    with mp.Manager() as manager:
        results = manager.dict()
        mp.spawn(report, args=(results,), nprocs=3)
        assert dict(results) == {0: 0, 1: 10, 2: 20}


if __name__ == "__main__":
    main()
