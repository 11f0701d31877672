"""Datasets over files that are read where they lie: only the pages of a batch come into memory.

Files are NumPy's (``numpy.save``), opened as memory maps; worker processes open them again and
share the pages.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from graphflow.errors import GraphFlowError
from graphflow.functions.creation import from_numpy
from graphflow.ir.types import from_numpy_dtype
from graphflow.tensor import Tensor
from graphflow.utils.data.dataset import Dataset

Array = np.ndarray[Any, Any]
Source = str | os.PathLike[str] | Array | Tensor


class MappedArray:
    """An array in memory, or in a ``.npy`` file that is not read as a whole.

    ``array[...]`` are its elements; a file is opened again in a process that a dataset is
    sent to.  Raises :class:`GraphFlowError` naming a file that is no array of numbers.
    """

    def __init__(self, source: Source) -> None:
        self.path = None if isinstance(source, (np.ndarray, Tensor)) else os.fspath(source)
        self.array = _opened(self.path) if self.path is not None else _values(source)

    def __getitem__(self, places: Any) -> Array:
        return np.asarray(self.array[places])

    def __len__(self) -> int:
        return len(self.array)

    def __getstate__(self) -> tuple[str | None, Array | None]:
        return self.path, None if self.path is not None else self.array

    def __setstate__(self, state: tuple[str | None, Array | None]) -> None:
        self.path, held = state
        self.array = _opened(self.path) if held is None and self.path is not None else held


def _values(source: Any) -> Any:
    return source.numpy() if isinstance(source, Tensor) else source


def _opened(path: str) -> Any:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise
    except (OSError, ValueError, EOFError) as error:
        raise GraphFlowError(
            f"{path}: no array that can be read in place ({error}); write it with numpy.save"
        ) from None
    if not isinstance(array, np.ndarray) or not array.ndim or array.dtype.kind not in "biufc":
        raise GraphFlowError(f"{path}: holds no array of numbers with at least one axis")
    return array


class MappedDataset(Dataset[tuple[Tensor, ...]]):
    """``TensorDataset`` over ``.npy`` files: sample ``i`` is the tuple of every file's row ``i``.

    ``sources`` are paths, or arrays that are in memory already; all have as many rows.
    """

    def __init__(self, *sources: Source) -> None:
        if not sources:
            raise ValueError("MappedDataset needs at least one file")
        self._columns = [MappedArray(source) for source in sources]
        rows = [len(column) for column in self._columns]
        if len(set(rows)) > 1:
            raise ValueError(f"MappedDataset: the files differ in their number of rows: {rows}")
        for column in self._columns:
            from_numpy_dtype(column.array.dtype)  # raises for those that no tensor has

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        return tuple(from_numpy(column[index].copy()) for column in self._columns)

    def __getbatch__(self, indices: Sequence[int]) -> list[Tensor]:
        """The rows at ``indices``, each file gathered at once."""
        rows = np.asarray(indices, np.int64)
        return [from_numpy(column[rows]) for column in self._columns]

    def __len__(self) -> int:
        return len(self._columns[0])


class TokenDataset(Dataset[tuple[Tensor, Tensor]]):
    """Windows of a long sequence of tokens, for language models.

    ``tokens`` is one-dimensional and of integers of any size: a ``.npy`` file (left where it
    is) or an array.  Sample ``i`` is ``(inputs, targets)``, int64 of ``length``: the tokens from
    ``i * stride`` on, and those one place later.  ``stride`` is ``length`` unless given, so
    that every token is a target once; 1 gives every window.  A shorter rest is left out.
    """

    def __init__(self, tokens: Source, length: int, *, stride: int | None = None) -> None:
        self._tokens = MappedArray(tokens)
        array = self._tokens.array
        if array.ndim != 1 or array.dtype.kind not in "iu":
            raise GraphFlowError(
                f"TokenDataset: tokens are one row of integers, not {array.dtype} of shape "
                f"{array.shape}"
            )
        self.length, self.stride = length, length if stride is None else stride
        if self.length < 1 or self.stride < 1:
            raise ValueError(
                f"TokenDataset: length and stride are positive, not {length}, {stride}"
            )

    def __len__(self) -> int:
        return max(0, (len(self._tokens) - self.length - 1) // self.stride + 1)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        (inputs,), (targets,) = self.__getbatch__([index])
        return inputs, targets

    def __getbatch__(self, indices: Sequence[int]) -> list[Tensor]:
        """Inputs and targets ``[len(indices), length]``."""
        picks, count = np.asarray(indices, np.int64), len(self)
        outside = picks[(picks < -count) | (picks >= count)]
        if outside.size:
            raise IndexError(f"index {outside[0]} is out of range for {count} windows")
        begins = np.where(picks < 0, picks + count, picks) * self.stride
        places = begins[:, None] + np.arange(self.length + 1)
        found = self._tokens[places].astype(np.int64)
        return [from_numpy(found[:, :-1].copy()), from_numpy(found[:, 1:].copy())]
