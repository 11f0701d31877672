"""A sampler that divides a data set over the ranks of a job."""

from __future__ import annotations

from collections.abc import Iterator, Sized

import numpy as np

from graphflow.utils.data.randomness import Order, draw_seed, shuffled
from graphflow.utils.data.sampler import Sampler


class DistributedSampler(Sampler[int]):
    """This rank's share of the indices: every ``num_replicas``-th of an order all ranks agree on.

    ``num_replicas`` and ``rank`` default to those of the job, whose process group must be
    initialised.  Shares are equally long: the order is filled up with its own beginning, or
    with ``drop_last`` cut.  With ``shuffle`` the order is that of ``seed`` and the epoch, so
    call ``set_epoch(epoch)`` before each epoch; the order is the same until then.

    With ``batch_size``, that of a rank, whole batches are dealt out instead of single indices:
    the batches of all ranks, one after the other, are then the next of the order, which is how
    ``DistributedDataParallel(virtual_ranks=…)`` takes them.
    """

    def __init__(
        self,
        dataset: Sized,
        num_replicas: int | None = None,
        rank: int | None = None,
        shuffle: bool = True,
        seed: int = 0,
        drop_last: bool = False,
        *,
        batch_size: int | None = None,
    ) -> None:
        if num_replicas is None or rank is None:
            from graphflow import distributed

            num_replicas = distributed.get_world_size() if num_replicas is None else num_replicas
            rank = distributed.get_rank() if rank is None else rank
        if not isinstance(num_replicas, int) or num_replicas < 1:
            raise ValueError(f"num_replicas should be a positive integer, got {num_replicas!r}")
        if not 0 <= rank < num_replicas:
            raise ValueError(f"rank {rank} is not one of 0 to {num_replicas - 1}")
        if batch_size is not None and (not isinstance(batch_size, int) or batch_size < 1):
            raise ValueError(f"batch_size should be a positive integer, got {batch_size!r}")
        if not len(dataset):
            raise ValueError("the dataset is empty: there is nothing to share out")
        self.dataset, self.num_replicas, self.rank = dataset, num_replicas, rank
        self.shuffle, self.seed, self.drop_last, self.epoch = shuffle, seed, drop_last, 0
        self.batch_size = batch_size

    @property
    def num_samples(self) -> int:
        """How many indices a rank has."""
        whole, rest = divmod(len(self.dataset), self.num_replicas)
        # As in PyTorch: what is dropped is what does not fill a round of all ranks.
        return whole if self.drop_last or not rest else whole + 1

    @property
    def total_size(self) -> int:
        """How many indices all ranks have together."""
        return self.num_samples * self.num_replicas

    def set_epoch(self, epoch: int) -> None:
        """Shuffle otherwise from the next iteration on."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        return iter(self.order().tolist())

    def order(self) -> Order:
        """All indices of this rank in the epoch."""
        size = len(self.dataset)
        if self.shuffle:
            order = shuffled(size, draw_seed(self.seed + self.epoch))
        else:
            order = np.arange(size)
        order = np.resize(order, self.total_size)
        if self.batch_size is None:
            return order[self.rank :: self.num_replicas]
        rest = self.num_samples % self.batch_size
        whole = self.total_size - rest * self.num_replicas
        batches = order[:whole].reshape(-1, self.num_replicas, self.batch_size)[:, self.rank]
        last = order[whole:].reshape(self.num_replicas, rest)[self.rank]
        return np.concatenate([batches.ravel(), last])

    def __len__(self) -> int:
        return self.num_samples
