"""Reductions of programs that MPI carries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from graphflow.distributed.shared import in_pairs
from graphflow.ir.op import Array

if TYPE_CHECKING:
    from graphflow.distributed.mpi import Channel, Pending


class Message:
    """One reduction that MPI carries: fill :attr:`own`, :meth:`publish` it, and :meth:`finish`."""

    def __init__(self, channel: Channel, own: Array, reduce: str) -> None:
        self._channel, self.own, self._reduce = channel, own, reduce
        self._pending: Pending | None = None

    def publish(self) -> None:
        """Set it off."""
        self._pending = self._channel.reduce_in_place(self.own, self._reduce)

    def advance(self) -> bool:
        """Let messages move; whether all have arrived."""
        return self._pending is not None and self._pending.advance()

    def finish(self, into: Array | None = None) -> Array:
        """The reduced vector, where it was filled in."""
        assert self._pending is not None
        self._pending.finish()
        return self.own


class InPairs(Message):
    """A sum in the order of a binary tree over the ranks.

    MPI adds up in an order of its own, so every rank gets the vectors of all: as many times the
    memory and the traffic as there are ranks.
    """

    _rows: Array

    def publish(self) -> None:
        """Send this rank's vector to all."""
        self._rows = np.empty((self._channel.size, self.own.size), self.own.dtype)
        self._pending = self._channel.all_gather(self.own, self._rows)

    def finish(self, into: Array | None = None) -> Array:
        """The sum."""
        super().finish()
        with np.errstate(all="ignore"):
            in_pairs(np.add, self._rows, self.own)
        return self.own


def accumulated(dtype: Any) -> Any:
    """The dtype in which values of ``dtype`` are reduced: MPI has no numbers of 16 bits."""
    return np.dtype(np.float32) if dtype.itemsize == 2 and dtype.kind not in "iu" else dtype


def gather(arrays: Sequence[Array], scale: float, vector: Array) -> None:
    """Lay ``arrays`` end to end in ``vector``, times ``scale``, whatever their type."""
    begin = 0
    for array in arrays:
        part = vector[begin : begin + array.size].reshape(array.shape)
        if scale == 1.0:
            part[...] = array
        else:
            np.multiply(array, vector.dtype.type(scale), out=part)
        begin += array.size
