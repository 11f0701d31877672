"""Datasets: where samples come from, and ways to cut and join them."""

from __future__ import annotations

import bisect
import itertools
import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Generic, TypeVar

from graphflow.functions.creation import tensor
from graphflow.tensor import Tensor
from graphflow.utils.data.randomness import RandomSource, permutation

T_co = TypeVar("T_co", covariant=True)
T = TypeVar("T")


class Dataset(Generic[T_co]):
    """A map from an index to a sample.

    Subclasses define ``__getitem__`` and, for everything that needs to know how
    many samples there are, ``__len__``.  A subclass may also define
    ``__getitems__(indices)`` returning the list of samples at once, where that
    is faster than one at a time, and ``__getbatch__(indices)`` returning the batch that
    ``default_collate`` would make of them (None: not for these).  Where several batches at once
    are faster still, ``__getbatches__(groups)``, whose groups are lists or int64
    arrays of indices, returns the list of them, or None.
    """

    def __getitem__(self, index: int) -> T_co:
        raise NotImplementedError(f"{type(self).__name__} must define __getitem__(index)")

    def __add__(self, other: Dataset[Any]) -> ConcatDataset[Any]:
        return ConcatDataset([self, other])


class IterableDataset(Dataset[T_co]):
    """A stream of samples: define ``__iter__`` (and ``__len__`` if it is known)."""

    def __iter__(self) -> Iterator[T_co]:
        raise NotImplementedError(f"{type(self).__name__} must define __iter__()")

    def __add__(self, other: Dataset[Any]) -> Any:
        return ChainDataset([self, other])


class TensorDataset(Dataset[tuple[Tensor, ...]]):
    """Tensors side by side: sample ``i`` is the tuple of every tensor's row ``i``."""

    tensors: tuple[Tensor, ...]

    def __init__(self, *tensors: Tensor) -> None:
        if not tensors:
            raise ValueError("TensorDataset needs at least one tensor")
        for position, column in enumerate(tensors):
            if not isinstance(column, Tensor):
                kind = type(column).__name__
                raise TypeError(
                    f"TensorDataset: argument {position} is a {kind}, not a tensor; "
                    "convert it with graphflow.tensor(...) or graphflow.from_numpy(...)"
                )
            if column.dim() == 0:
                raise ValueError(f"TensorDataset: argument {position} is 0-d and has no rows")
        rows = [column.shape[0] for column in tensors]
        if len(set(rows)) > 1:
            raise ValueError(f"TensorDataset: tensors differ in their number of rows: {rows}")
        self.tensors = tensors

    def __getitem__(self, index: Any) -> tuple[Tensor, ...]:
        return tuple(column[index] for column in self.tensors)

    def __getbatch__(self, indices: Sequence[int]) -> list[Tensor] | None:
        """The samples at ``indices`` in one indexing operation a tensor."""
        if type(self).__getitem__ is not TensorDataset.__getitem__:
            return None  # a subclass makes its samples otherwise
        rows = tensor(list(indices))
        return [column[rows] for column in self.tensors]

    def __len__(self) -> int:
        return int(self.tensors[0].shape[0])


class StackDataset(Dataset[Any]):
    """Datasets side by side: sample ``i`` is the tuple (or dict) of their samples ``i``.

    ``StackDataset(images, texts)`` makes tuples, ``StackDataset(image=images, text=texts)``
    dicts.
    """

    datasets: tuple[Any, ...] | dict[str, Any]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if bool(args) == bool(kwargs):
            raise ValueError("StackDataset takes datasets either by position or by name")
        self.datasets = kwargs or args
        sizes = [size_of(dataset) for dataset in self._members()]
        if len(set(sizes)) > 1:
            raise ValueError(f"StackDataset: the datasets differ in size: {sizes}")
        self._length = sizes[0]

    def _members(self) -> list[Any]:
        datasets = self.datasets
        return list(datasets.values() if isinstance(datasets, dict) else datasets)

    def _joined(self, parts: Sequence[Any]) -> Any:
        if isinstance(self.datasets, dict):
            return dict(zip(self.datasets, parts, strict=True))
        return tuple(parts)

    def __getitem__(self, index: int) -> Any:
        return self._joined([dataset[index] for dataset in self._members()])

    def __getitems__(self, indices: Sequence[int]) -> list[Any]:
        columns = [fetch(dataset, indices) for dataset in self._members()]
        return [self._joined(parts) for parts in zip(*columns, strict=True)]

    def __len__(self) -> int:
        return self._length


class Subset(Dataset[T_co]):
    """The samples of ``dataset`` at ``indices``, in that order."""

    dataset: Dataset[T_co]
    indices: Sequence[int]

    def __init__(self, dataset: Dataset[T_co], indices: Sequence[int]) -> None:
        self.dataset = dataset
        self.indices = indices

    def __getitem__(self, index: Any) -> T_co:
        if isinstance(index, list):
            return self.dataset[[self.indices[i] for i in index]]  # type: ignore[index]
        return self.dataset[self.indices[index]]

    def __getitems__(self, indices: Sequence[int]) -> list[T_co]:
        return fetch(self.dataset, [self.indices[i] for i in indices])

    def __len__(self) -> int:
        return len(self.indices)


class ConcatDataset(Dataset[T_co]):
    """Datasets one after another."""

    datasets: list[Dataset[T_co]]
    cumulative_sizes: list[int]

    def __init__(self, datasets: Iterable[Dataset[T_co]]) -> None:
        self.datasets = list(datasets)
        if not self.datasets:
            raise ValueError("ConcatDataset needs at least one dataset")
        if any(isinstance(d, IterableDataset) for d in self.datasets):
            raise TypeError("ConcatDataset cannot hold an IterableDataset; use ChainDataset")
        self.cumulative_sizes = list(itertools.accumulate(size_of(d) for d in self.datasets))

    def __len__(self) -> int:
        return self.cumulative_sizes[-1]

    def __getitem__(self, index: int) -> T_co:
        size = len(self)
        if not -size <= index < size:
            raise IndexError(f"index {index} is out of range for {size} samples")
        index += size if index < 0 else 0
        which = bisect.bisect_right(self.cumulative_sizes, index)
        return self.datasets[which][index - (self.cumulative_sizes[which - 1] if which else 0)]


class ChainDataset(IterableDataset[T_co]):
    """Streams one after another."""

    def __init__(self, datasets: Iterable[Any]) -> None:
        self.datasets = list(datasets)

    def __iter__(self) -> Iterator[T_co]:
        for dataset in self.datasets:
            if not isinstance(dataset, IterableDataset):
                raise TypeError("ChainDataset holds only IterableDataset; use ConcatDataset")
            yield from dataset

    def __len__(self) -> int:
        return sum(size_of(d) for d in self.datasets)


def size_of(dataset: Any) -> int:
    """``len(dataset)``, with an error that says what is missing."""
    try:
        return len(dataset)
    except TypeError:
        name = type(dataset).__name__
        raise TypeError(f"{name} has no len(): define __len__, or pass a sampler") from None


def fetch(dataset: Dataset[T], indices: Sequence[int]) -> list[T]:
    """The samples at ``indices``, through ``__getitems__`` where there is one."""
    getitems: Callable[[Sequence[int]], list[T]] | None
    getitems = getattr(dataset, "__getitems__", None)
    if getitems is not None:
        samples: list[T] = getitems(indices)
        if len(samples) != len(indices):
            raise ValueError(
                f"{type(dataset).__name__}.__getitems__ returned {len(samples)} samples "
                f"for {len(indices)} indices"
            )
        return samples
    return [dataset[i] for i in indices]


def random_split(
    dataset: Dataset[T], lengths: Sequence[int | float], generator: RandomSource = None
) -> list[Subset[T]]:
    """Cut ``dataset`` at random into non-overlapping parts.

    ``lengths`` are counts that sum to ``len(dataset)``, or fractions that sum
    to 1 (what rounding down leaves over goes to the parts one by one).
    """
    total = size_of(dataset)
    counts = _counts(total, lengths)
    order = permutation(total, generator)
    ends = itertools.accumulate(counts)
    return [Subset(dataset, order[e - n : e]) for n, e in zip(counts, ends, strict=True)]


def _counts(total: int, lengths: Sequence[int | float]) -> list[int]:
    if math.isclose(sum(lengths), 1) and all(0 <= part <= 1 for part in lengths):
        counts = [math.floor(total * part) for part in lengths]
        for extra in range(total - sum(counts)):
            counts[extra % len(counts)] += 1
        for position, count in enumerate(counts):
            if count == 0:
                warnings.warn(f"random_split: part {position} is empty", stacklevel=3)
        return counts
    if sum(lengths) != total or any(n != int(n) or n < 0 for n in lengths):
        raise ValueError(
            f"random_split: lengths {list(lengths)} must be counts that sum to the "
            f"dataset's {total} samples, or fractions that sum to 1"
        )
    return [int(n) for n in lengths]
