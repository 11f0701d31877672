"""utils.data: order, batches, collating and splits, with PyTorch's meanings."""

import collections
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import graphflow as gf
from graphflow.utils.data import (
    BatchSampler,
    ChainDataset,
    ConcatDataset,
    DataLoader,
    Dataset,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    Sampler,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
    default_collate,
    random_split,
    randomness,
)
from graphflow.utils.data.fetching import gathered
from graphflow.utils.data.randomness import shuffled, words


class Squares(Dataset[tuple[Any, int]]):
    """Sample i is (a float32 array [i, i²], i)."""

    def __init__(self, size: int = 10) -> None:
        self.size = size

    def __getitem__(self, index: int) -> tuple[Any, int]:
        if not 0 <= index < self.size:
            raise IndexError(index)
        return np.array([index, index**2], np.float32), index

    def __len__(self) -> int:
        return self.size


class Stream(IterableDataset[int]):
    """The numbers below a limit."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.size))


def rows(loader: Any) -> list[list[int]]:
    """The labels of every batch."""
    return [batch[-1].tolist() for batch in loader]


def flat(loader: Any) -> list[int]:
    """The labels of a whole epoch."""
    return [label for batch in rows(loader) for label in batch]


def pairs(size: int = 10) -> TensorDataset:
    numbers = gf.tensor(list(range(size)))
    return TensorDataset(numbers.to(gf.float32).reshape(-1, 1) * 2, numbers)


# ---- order and batches ------------------------------------------------------------------


@pytest.mark.parametrize("make", [Squares, pairs])
def test_batches_in_order(make: Any) -> None:
    data = make()
    assert rows(DataLoader(data, 4)) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert rows(DataLoader(data, 4, drop_last=True)) == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert rows(DataLoader(data)) == [[i] for i in range(10)]
    for size, last in ((1, False), (4, False), (4, True), (5, True), (11, False), (11, True)):
        loader = DataLoader(data, size, drop_last=last)
        assert len(loader) == len(list(loader))


def test_shuffle_is_a_new_permutation_every_epoch_and_follows_the_seed() -> None:
    def epochs(seed: Any) -> list[list[int]]:
        loader = DataLoader(pairs(50), 8, shuffle=True, generator=seed)
        return [flat(loader) for _ in range(3)]

    first, again, other = epochs(7), epochs(7), epochs(8)
    assert first == again and first != other
    assert len({tuple(epoch) for epoch in first}) == 3
    assert all(sorted(epoch) == list(range(50)) for epoch in first)


def test_shuffle_follows_manual_seed_and_generators() -> None:
    def order(generator: Any = None) -> list[int]:
        return flat(DataLoader(pairs(40), 8, shuffle=True, generator=generator))

    gf.manual_seed(3)
    first, second = order(), order()
    gf.manual_seed(3)
    assert [order(), order()] == [first, second] and first != second
    assert order(gf.Generator().manual_seed(5)) == order(gf.Generator().manual_seed(5))
    assert order(np.random.default_rng(5)) == order(np.random.default_rng(5))
    with pytest.raises(TypeError, match="generator is a str"):
        DataLoader(pairs(), generator="seed")


def test_the_permutation_is_pinned() -> None:
    # The promise is "the same on every machine and NumPy version".
    assert list(RandomSampler(range(10), generator=0)) == PINNED


PINNED = [0, 4, 2, 9, 8, 1, 6, 3, 7, 5]


def test_permutations_are_uniform() -> None:
    sampler = RandomSampler(range(4), generator=11)
    counts = collections.Counter(tuple(sampler) for _ in range(4800))
    assert len(counts) == 24
    # Expected 200 each with a standard deviation of 14: seven of them.
    assert max(abs(count - 200) for count in counts.values()) < 100


def test_a_loader_can_be_left_in_the_middle_and_started_again() -> None:
    loader = DataLoader(pairs(), 4)
    assert next(iter(loader))[1].tolist() == next(iter(loader))[1].tolist() == [0, 1, 2, 3]


def test_batch_size_none_hands_over_samples() -> None:
    got = list(DataLoader(Squares(3), batch_size=None))
    assert [label for _, label in got] == [0, 1, 2]
    assert isinstance(got[1][0], gf.Tensor) and got[1][0].tolist() == [1.0, 1.0]


def test_own_sampler_batch_sampler_and_collate() -> None:
    class Backwards(Sampler[int]):
        def __iter__(self) -> Iterator[int]:
            return iter([9, 8, 7])

        def __len__(self) -> int:
            return 3

    assert rows(DataLoader(pairs(), 2, sampler=Backwards())) == [[9, 8], [7]]
    assert rows(DataLoader(pairs(), batch_sampler=[[1, 5], [3]])) == [[1, 5], [3]]
    assert len(DataLoader(pairs(), batch_sampler=[[1, 5], [3]])) == 2
    samples = list(DataLoader(Squares(5), 2, collate_fn=lambda batch: [b[1] for b in batch]))
    assert samples == [[0, 1], [2, 3], [4]]


def test_getitems_is_used() -> None:
    asked: list[list[int]] = []

    class Bulk(Squares):
        def __getitems__(self, indices: list[int]) -> list[Any]:
            asked.append(indices)
            return [self[i] for i in indices]

    assert rows(DataLoader(Bulk(5), 3)) == [[0, 1, 2], [3, 4]]
    assert rows(DataLoader(Subset(Bulk(5), [4, 0]), 3)) == [[4, 0]]
    assert asked == [[0, 1, 2], [3, 4], [4, 0]]


@pytest.mark.parametrize("seed", range(5))
def test_gathering_a_batch_is_what_collating_gives(seed: int) -> None:
    print("seed", seed)
    rng = np.random.default_rng(seed)
    data = TensorDataset(
        gf.from_numpy(rng.random((20, 3, 2)).astype(np.float32)),
        gf.from_numpy(rng.integers(0, 9, 20)),
        gf.from_numpy(rng.random(20) > 0.5),
    )
    view = Subset(Subset(data, rng.permutation(20).tolist()), rng.integers(0, 20, 12).tolist())
    indices = rng.integers(0, 12, 7).tolist()
    fast = gathered(view, indices)
    assert fast is not None
    slow = default_collate([view[i] for i in indices])
    for a, b in zip(fast, slow, strict=True):
        assert a.dtype == b.dtype and a.tolist() == b.tolist()


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("size", [0, 1, 5, 6, 7, 70_000])
def test_orders_as_arrays_are_those_of_the_numbers(size: int, drop_last: bool) -> None:
    for count in (size, 2 * size + 1) if size else ():
        draws = [RandomSampler(range(size), num_samples=count, generator=7) for _ in range(2)]
        assert draws[0].order().tolist() == list(draws[1])
    expected = np.argsort(words(11, size), kind="stable")
    assert shuffled(size, 11).tolist() == expected.tolist()
    loaders = [DataLoader(range(size), 3, drop_last=drop_last, **({"shuffle": True, "generator": 3}
               if size else {})) for _ in range(2)]  # fmt: skip
    assert [b.tolist() for b in loaders[0]] == list(loaders[1].batch_sampler or ())


def test_words_alike_in_their_high_bits_are_sorted_by_all(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = np.array([9, 8, 1 << 60, 8, 0], np.uint64)
    monkeypatch.setattr(randomness, "words", lambda seed, count: drawn[:count])
    assert shuffled(5, 0).tolist() == [4, 1, 3, 0, 2]


# ---- shares of a data set ---------------------------------------------------------------


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize(("size", "ranks"), [(12, 4), (13, 4), (3, 4), (1, 5), (7, 1)])
def test_the_shares_of_all_ranks_are_the_data_set(size: int, ranks: int, shuffle: bool) -> None:
    samplers = [DistributedSampler(range(size), ranks, r, shuffle, seed=5) for r in range(ranks)]
    for epoch in (0, 1):
        for sampler in samplers:
            sampler.set_epoch(epoch)
        shares = [list(sampler) for sampler in samplers]
        assert {len(share) for share in shares} == {len(samplers[0])} == {-(-size // ranks)}
        # Dealt out in turns: the order, then its beginning once more to fill the last round.
        dealt = [index for turn in zip(*shares, strict=True) for index in turn]
        assert sorted(dealt[:size]) == list(range(size))
        assert dealt[size:] == (dealt[:size] * ranks)[: len(dealt) - size]
        if not shuffle:
            assert dealt[:size] == list(range(size))


def test_a_share_changes_with_the_epoch_and_the_seed_alone() -> None:
    sampler = DistributedSampler(range(100), 4, 1)
    first = list(sampler)
    assert list(sampler) == first == list(DistributedSampler(range(100), 4, 1))
    sampler.set_epoch(1)
    assert list(sampler) != first != list(DistributedSampler(range(100), 4, 1, seed=9))


def test_a_share_is_cut_where_the_last_is_dropped() -> None:
    shares = [list(DistributedSampler(range(11), 4, r, False, drop_last=True)) for r in range(4)]
    assert shares == [[0, 4], [1, 5], [2, 6], [3, 7]]
    with pytest.raises(gf.GraphFlowError, match="init_process_group"):
        DistributedSampler(range(4))


@pytest.mark.parametrize(("size", "ranks", "batch"), [(24, 4, 3), (26, 4, 3), (5, 2, 4), (7, 1, 3)])
def test_batches_of_all_ranks_are_the_next_of_the_order(size: int, ranks: int, batch: int) -> None:
    shares = [
        list(DistributedSampler(range(size), ranks, r, seed=3, batch_size=batch))
        for r in range(ranks)
    ]
    order = list(DistributedSampler(range(size), 1, 0, seed=3))
    order += order[: -size % ranks]
    taken = [share[i : i + batch] for i in range(0, len(shares[0]), batch) for share in shares]
    assert [index for part in taken for index in part] == order
    with pytest.raises(ValueError, match="batch_size should be a positive integer, got 0"):
        DistributedSampler(range(4), 2, 0, batch_size=0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((range(3), 0, 0), "positive"), ((range(3), 2, 2), "rank 2"), (([], 1, 0), "empty")],
)
def test_shares_that_cannot_be(arguments: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DistributedSampler(*arguments)


# ---- errors -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, "positive integer"),
        ({"batch_size": 2.5}, "positive integer"),
        ({"shuffle": True, "sampler": [0]}, "sampler"),
        ({"batch_sampler": [[0]], "shuffle": True}, "batch_sampler"),
        ({"batch_sampler": [[0]], "batch_size": 3}, "batch_sampler"),
        ({"batch_size": None, "drop_last": True}, "drop_last"),
        ({"num_workers": -1}, "num_workers"),
        ({"num_workers": True}, "num_workers"),
        ({"prefetch_factor": 2}, "num_workers > 0"),
        ({"persistent_workers": True}, "num_workers > 0"),
        ({"num_workers": 1, "prefetch_factor": 0}, "positive integer"),
        ({"timeout": -1}, "timeout"),
    ],
)
def test_arguments_that_make_no_sense(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DataLoader(pairs(), **arguments)


def test_pin_memory_warns_and_goes_on() -> None:
    with pytest.warns(UserWarning, match="no CUDA device"):
        loader = DataLoader(pairs(), 5, pin_memory=True)
    assert len(list(loader)) == 2


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TensorDataset(), "at least one"),
        (lambda: TensorDataset(gf.zeros(3), gf.zeros(4)), r"\[3, 4\]"),
        (lambda: TensorDataset(gf.tensor(1.0)), "0-d"),
        (lambda: ConcatDataset([]), "at least one"),
        (lambda: random_split(pairs(), [3, 3]), "10 samples"),
        (lambda: random_split(pairs(), [11, -1]), "10 samples"),
        (lambda: DataLoader(Stream(3), shuffle=True), "IterableDataset"),
        (lambda: DataLoader(Stream(3), sampler=[1]), "IterableDataset"),
        (lambda: WeightedRandomSampler([0, 0], 2), "all zero"),
        (lambda: WeightedRandomSampler([1, -1], 2), "negative"),
        (lambda: WeightedRandomSampler([1, 0], 2, replacement=False), "without replacement"),
        (lambda: RandomSampler(range(3), num_samples=0), "num_samples"),
    ],
)
def test_wrong_arguments(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_wrong_types_name_themselves() -> None:
    with pytest.raises(TypeError, match="argument 1 is a ndarray"):
        TensorDataset(gf.zeros(2), np.zeros(2))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="__len__"):
        len(DataLoader(Stream(3)))
    with pytest.raises(TypeError, match="__len__"):
        random_split(Stream(3), [1, 2])


# ---- streams ----------------------------------------------------------------------------


def test_streams() -> None:
    assert [b.tolist() for b in DataLoader(Stream(5), 2)] == [[0, 1], [2, 3], [4]]
    assert [b.tolist() for b in DataLoader(Stream(5), 2, drop_last=True)] == [[0, 1], [2, 3]]
    assert list(DataLoader(Stream(3), batch_size=None)) == [0, 1, 2]
    chained = ChainDataset([Stream(2), Stream(3)])
    assert [b.tolist() for b in DataLoader(chained, 4)] == [[0, 1, 0, 1], [2]]


# ---- collating --------------------------------------------------------------------------

Point = collections.namedtuple("Point", ["x", "y"])


def test_collate_numbers_and_arrays() -> None:
    assert default_collate([1, 2]).dtype == gf.int64
    assert default_collate([1.5, 2.0]).dtype == gf.float64
    assert default_collate([True, False]).dtype == gf.bool
    assert default_collate([np.float32(1), np.float32(2)]).dtype == gf.float32
    stacked = default_collate([np.ones((2, 3), np.int16), np.zeros((2, 3), np.int16)])
    assert stacked.dtype == gf.int16 and tuple(stacked.shape) == (2, 2, 3)
    assert tuple(default_collate([gf.zeros(3), gf.ones(3)]).shape) == (2, 3)
    assert default_collate(["a", "b"]) == ["a", "b"]


def test_collate_structures() -> None:
    batch = [{"a": Point(i, [i, (i, str(i))])} for i in range(3)]
    made = default_collate(batch)
    assert isinstance(made["a"], Point) and made["a"].x.tolist() == [0, 1, 2]
    assert made["a"].y[0].tolist() == [0, 1, 2]
    assert made["a"].y[1][1] == ["0", "1", "2"]
    ordered = default_collate([collections.OrderedDict(b=1, a=2)] * 2)
    assert isinstance(ordered, collections.OrderedDict) and list(ordered) == ["b", "a"]


def test_collate_errors_say_which_sample() -> None:
    with pytest.raises(gf.ShapeError, match=r"\[2\] at entry 0 and \[3\] at entry 1"):
        default_collate([gf.zeros(2), gf.zeros(3)])
    with pytest.raises(RuntimeError, match="different numbers of fields"):
        default_collate([(1, 2), (1, 2, 3)])
    with pytest.raises(TypeError, match="object"):
        default_collate([object(), object()])
    with pytest.raises(TypeError, match="dtype"):
        default_collate([np.array(["a"]), np.array(["b"])])


# ---- cutting and joining ----------------------------------------------------------------


def test_random_split_is_a_partition_that_follows_the_seed() -> None:
    parts = random_split(Squares(10), [7, 3], generator=1)
    assert [len(part) for part in parts] == [7, 3]
    found = [label for part in parts for _, label in (part[i] for i in range(len(part)))]
    assert sorted(found) == list(range(10)) and found != list(range(10))
    again = random_split(Squares(10), [7, 3], generator=1)
    assert [p.indices for p in again] == [p.indices for p in parts]
    fractions = random_split(Squares(11), [0.5, 0.25, 0.25], generator=1)
    assert [len(part) for part in fractions] == [6, 3, 2]
    with pytest.warns(UserWarning, match="empty"):
        assert [len(p) for p in random_split(Squares(1), [0.5, 0.5], 1)] == [1, 0]


def test_concat() -> None:
    joined = Squares(3) + Squares(2)
    assert isinstance(joined, ConcatDataset) and len(joined) == 5
    assert [joined[i][1] for i in range(-5, 5)] == [0, 1, 2, 0, 1] * 2
    for wrong in (5, -6):
        with pytest.raises(IndexError):
            joined[wrong]


# ---- samplers ---------------------------------------------------------------------------


def test_sequential_and_batch_samplers() -> None:
    assert list(SequentialSampler(range(3))) == [0, 1, 2]
    assert list(BatchSampler(SequentialSampler(range(5)), 2, False)) == [[0, 1], [2, 3], [4]]
    assert len(BatchSampler(SequentialSampler(range(5)), 2, True)) == 2
    chosen = list(SubsetRandomSampler([5, 7, 9], generator=2))
    assert sorted(chosen) == [5, 7, 9]


def test_random_sampler_counts() -> None:
    more = list(RandomSampler(range(4), num_samples=10, generator=1))
    assert len(more) == 10 and sorted(more[:4]) == sorted(more[4:8]) == [0, 1, 2, 3]
    drawn = list(RandomSampler(range(4), replacement=True, num_samples=400, generator=1))
    assert set(drawn) == {0, 1, 2, 3} and min(collections.Counter(drawn).values()) > 60
    assert list(RandomSampler([])) == []


def test_weighted_sampler_draws_in_proportion() -> None:
    drawn = list(WeightedRandomSampler([1, 0, 3], 4000, generator=9))
    counts = collections.Counter(drawn)
    assert counts[1] == 0 and abs(counts[2] / 4000 - 0.75) < 0.04  # about six deviations
    firsts = collections.Counter()
    sampler = WeightedRandomSampler([1, 0, 3], 2, replacement=False, generator=9)
    for _ in range(2000):
        first, second = sampler
        assert {first, second} == {0, 2}
        firsts[first] += 1
    assert abs(firsts[2] / 2000 - 0.75) < 0.06
