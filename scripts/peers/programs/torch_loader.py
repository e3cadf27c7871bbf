"""A DataLoader with worker processes: each batch arrives once, in order, as shared tensors; a worker's error is the caller's."""

import gc
import multiprocessing

import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info


class Squares(Dataset):
    def __len__(self):
        return 64

    def __getitem__(self, index):
        assert get_worker_info() is not None
        return torch.full((1000,), index * index, dtype=torch.int64)


class Faulty(Squares):
    def __getitem__(self, index):
        if index == 17:
            raise KeyError("item 17")
        return super().__getitem__(index)


def main():
    for method in ("fork", "spawn", "forkserver"):
        loader = DataLoader(
            Squares(), batch_size=8, num_workers=2, multiprocessing_context=method, persistent_workers=True
        )
        for _ in range(2):
            firsts = [int(batch[0, 0]) for batch in loader]
            assert firsts == [(8 * n) ** 2 for n in range(8)], firsts
            assert all(batch.shape == (8, 1000) for batch in loader)
        del loader
        try:
            for _batch in DataLoader(Faulty(), batch_size=4, num_workers=2, multiprocessing_context=method):
                pass
        except KeyError as error:
            assert "item 17" in str(error)
        else:
            raise AssertionError("the worker's error was not raised here")
    # The loader whose worker failed is part of a reference cycle, and holds its workers.
    gc.collect()
    assert not multiprocessing.active_children()


if __name__ == "__main__":
    main()
