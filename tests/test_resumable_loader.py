"""A loader that goes on in the middle of an epoch, whatever is random in it."""

import random

import numpy as np
import pytest

import graphflow as gf
from graphflow.serialization.structure import described, restored
from graphflow.training import ResumableLoader
from graphflow.training.state import random_states, set_random_states
from graphflow.utils.data import DataLoader, Dataset, DistributedSampler, IterableDataset
from graphflow.utils.data.sampler import RandomSampler


class Numbers(Dataset):
    """Samples that are random in all the ways there are."""

    def __init__(self, count=10):
        self.count = count

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        return index + random.random() + np.random.rand(), index


class Stream(IterableDataset):
    def __iter__(self):
        return (index + random.random() for index in range(11))


LOADERS = {
    "in order": lambda: DataLoader(Numbers(), 3),
    "shuffled": lambda: DataLoader(Numbers(), 3, shuffle=True),
    "seed": lambda: DataLoader(Numbers(), 3, shuffle=True, generator=5),
    "generator": lambda: DataLoader(
        Numbers(), 3, shuffle=True, generator=gf.Generator().manual_seed(3)
    ),
    "several passes": lambda: DataLoader(
        Numbers(), 3, sampler=RandomSampler(Numbers(), num_samples=25)
    ),
    "replacement": lambda: DataLoader(Numbers(), 3, sampler=RandomSampler(Numbers(), True)),
    "distributed": lambda: DataLoader(Numbers(), 2, sampler=DistributedSampler(Numbers(), 2, 1)),
    "samples": lambda: DataLoader(Numbers(), None, shuffle=True),
    "stream": lambda: DataLoader(Stream(), 2),
    "workers": lambda: DataLoader(Numbers(), 2, shuffle=True, num_workers=2),
}


def saved(state):
    """What a file gives back of a state."""
    arrays, text = described(state)
    copies = {name: array.copy() for name, array in arrays.items()}
    return restored(copies, text, "test")


def values(batch):
    return [part.tolist() if hasattr(part, "tolist") else part for part in batch]


def drive(batches, epochs, stop=None):
    """Iterate up to an epoch: the batches, or what to go on from after the first ``stop``."""
    found = []
    while batches.epoch < epochs:
        for batch in batches:
            gf.rand(3), random.random()  # what training draws
            found.append(values(batch))
            if stop is not None and batches.batch == stop:
                return saved(batches.state_dict()), saved(random_states())
    return found


@pytest.mark.parametrize("kind", LOADERS)
@pytest.mark.parametrize("at", [2, 0, -1], ids=["middle", "start", "end"])
def test_the_rest_of_an_epoch_is_the_same(kind, at):
    def start(seed):
        gf.manual_seed(seed), random.seed(seed), np.random.seed(seed)
        return ResumableLoader(LOADERS[kind]())

    batches = start(0)
    length = len(drive(batches, 1))
    stop = at % (length + 1)
    expected = drive(batches, 3)
    batches = start(0)
    drive(batches, 1)
    if stop:
        state, numbers = drive(batches, 2, stop)
    else:
        state, numbers = saved(batches.state_dict()), saved(random_states())
    again = start(9)
    again.load_state_dict(state)
    set_random_states(numbers)
    assert (again.epoch, again.batch) == (1, stop)
    assert drive(again, 3) == expected[stop:] and expected[stop:]


def test_an_epoch_that_is_broken_off_ends_there():
    batches = ResumableLoader(DataLoader(Numbers(), 3))
    next(iter(batches))
    assert (batches.epoch, batches.batch, len(batches)) == (0, 1, 4)
    assert len(list(batches)) == 4 and batches.epoch == 2


def test_the_place_is_kept_on_another_number_of_ranks():
    def loader(ranks, rank=0):
        sampler = DistributedSampler(range(48), ranks, rank)
        return ResumableLoader(DataLoader(gf.arange(48), 2, sampler=sampler))

    seen = set()
    for rank in range(2):
        batches = loader(2, rank)
        for batch in batches:
            seen.update(batch.tolist())
            if batches.batch == 6:
                state = saved(batches.state_dict())
                break
    rest = set()
    for rank in range(4):
        batches = loader(4, rank)
        batches.load_state_dict(state)
        assert batches.batch == 3
        for batch in batches:
            rest.update(batch.tolist())
    assert seen | rest == set(range(48)) and not seen & rest
