"""Sequences of different lengths in one tensor: packed one step after the other, or padded.

Packed data has no gaps: the first steps of all sequences, longest first, then the second
steps of those that have one, and so on; ``batch_sizes`` says how many each step has.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Self

import numpy as np

from graphflow.errors import ShapeError, TraceError
from graphflow.functions.creation import from_numpy
from graphflow.functions.picking import index_select
from graphflow.functions.shaping import cat, stack
from graphflow.mode import mode
from graphflow.nn.functional.recurrent import pad_rows, take_rows
from graphflow.records import NamedTuple
from graphflow.tensor import Tensor

__all__ = [
    "PackedSequence", "invert_permutation", "pack_padded_sequence", "pack_sequence",
    "pad_packed_sequence", "pad_sequence", "unpack_sequence", "unpad_sequence",
]  # fmt: skip


class _Packed(NamedTuple):
    data: Tensor
    batch_sizes: Tensor
    sorted_indices: Tensor | None
    unsorted_indices: Tensor | None


class PackedSequence(_Packed):
    """Packed data [rows, ...], ``batch_sizes`` [time] (int64), and the order of the sequences.

    ``sorted_indices`` puts the given order into longest-first, ``unsorted_indices`` back.
    """

    _sizes: tuple[int, ...]  # batch_sizes as numbers, which a trace has to know

    def __new__(
        cls, data: Tensor, batch_sizes: Tensor | None = None,
        sorted_indices: Tensor | None = None, unsorted_indices: Tensor | None = None,
    ) -> Self:  # fmt: skip
        """From data and batch sizes; the inverse order is worked out where it is missing."""
        if batch_sizes is None:
            raise ValueError("PackedSequence needs batch_sizes: the sequences at each time step")
        if unsorted_indices is None:
            unsorted_indices = invert_permutation(sorted_indices)
        return super().__new__(cls, data, batch_sizes, sorted_indices, unsorted_indices)

    def sizes(self) -> tuple[int, ...]:
        """``batch_sizes`` as numbers; inside compiled code only of what was packed there."""
        known = self.__dict__.get("_sizes")
        if known is None:
            if mode.tracer is not None:
                raise TraceError(
                    "how many sequences are packed at each step must be known while a function "
                    "is compiled: pass it the padded tensor, and pack inside with the lengths "
                    "as Python numbers"
                )
            known = self._sizes = tuple(int(n) for n in self.batch_sizes.tolist())
        return known

    def with_data(self, data: Tensor) -> PackedSequence:
        """Other data in the same order."""
        made = PackedSequence(data, self.batch_sizes, self.sorted_indices, self.unsorted_indices)
        if "_sizes" in self.__dict__:
            made._sizes = self._sizes
        return made

    def to(self, *args: Any, **kwargs: Any) -> PackedSequence:
        """The same sequences, their data converted as by ``Tensor.to``."""
        data = self.data.to(*args, **kwargs)
        return self if data is self.data else self.with_data(data)

    def cpu(self) -> PackedSequence:
        """The same sequences; all memory is the host's."""
        return self.with_data(self.data.cpu())

    def cuda(self, *args: Any, **kwargs: Any) -> PackedSequence:
        """As ``Tensor.cuda``."""
        return self.with_data(self.data.cuda(*args, **kwargs))

    def pin_memory(self) -> PackedSequence:
        """As ``Tensor.pin_memory``."""
        return self.with_data(self.data.pin_memory())

    def is_pinned(self) -> bool:
        """As ``Tensor.is_pinned``."""
        return bool(self.data.is_pinned())

    @property
    def is_cuda(self) -> bool:
        """Whether the data is on an accelerator of that name."""
        return bool(self.data.is_cuda)

    def double(self) -> PackedSequence:
        """Data as float64."""
        return self.with_data(self.data.double())

    def float(self) -> PackedSequence:
        """Data as float32."""
        return self.with_data(self.data.float())

    def half(self) -> PackedSequence:
        """Data as float16."""
        return self.with_data(self.data.half())

    def long(self) -> PackedSequence:
        """Data as int64."""
        return self.with_data(self.data.long())

    def int(self) -> PackedSequence:
        """Data as int32."""
        return self.with_data(self.data.int())

    def short(self) -> PackedSequence:
        """Data as int16."""
        return self.with_data(self.data.short())

    def char(self) -> PackedSequence:
        """Data as int8."""
        return self.with_data(self.data.char())

    def byte(self) -> PackedSequence:
        """Data as uint8."""
        return self.with_data(self.data.byte())


def invert_permutation(permutation: Tensor | None) -> Tensor | None:
    """The permutation that undoes ``permutation`` [n]; None for None."""
    return None if permutation is None else permutation.argsort()


_LENGTHS = (
    "pack_padded_sequence (whose lengths are Python numbers in compiled code: hand it a list of "
    "them, or pack before the compiled function)"
)


def _numbers(lengths: Any) -> np.ndarray[Any, Any]:
    """Lengths as an array of int64, of one dimension."""
    if isinstance(lengths, Tensor):
        lengths = lengths._concrete(_LENGTHS).tolist()
    array = np.asarray(lengths).astype(np.int64)
    if array.ndim != 1:
        raise ShapeError(f"lengths must have 1 dimension, not {array.ndim}")
    return array


def pack_padded_sequence(
    input: Tensor, lengths: Any, batch_first: bool = False, enforce_sorted: bool = True
) -> PackedSequence:
    """Pack ``input`` [time, batch, ...] (batch first if so said), sequence i to ``lengths[i]``.

    ``enforce_sorted``: the sequences are longest first already; else they are put in that
    order. Lengths are at least 1; inside compiled code they must be Python numbers.
    """
    counts = _numbers(lengths)
    axis = 0 if batch_first else 1
    batch, longest = input.shape[axis], input.shape[1 - axis]
    if not input.numel():
        raise ShapeError("pack_padded_sequence: cannot pack empty tensors")
    if len(counts) != batch:
        raise ShapeError(
            f"pack_padded_sequence: expected `len(lengths)` to be equal to the batch size {batch}, "
            f"but got {len(counts)}"
        )
    if counts.min() <= 0:
        raise ShapeError(
            "pack_padded_sequence: every length has to be greater than 0, but one is "
            f"{counts.min()}"
        )
    if counts.max() > longest:
        raise ShapeError(
            f"pack_padded_sequence: a length is {counts.max()}, but the input has {longest} steps"
        )
    order = None
    if not enforce_sorted:
        permutation = np.argsort(-counts, kind="stable")
        counts, order = counts[permutation], from_numpy(permutation)
        input = index_select(input, axis, order)
    elif (np.diff(counts) > 0).any():
        raise ShapeError(
            "pack_padded_sequence: lengths must be in decreasing order where enforce_sorted is "
            "True; enforce_sorted=False sorts them"
        )
    sizes = tuple(int((counts > step).sum()) for step in range(int(counts[0])))
    return _packed(take_rows(input.transpose(0, 1) if batch_first else input, sizes), sizes, order)


def _packed(data: Tensor, sizes: tuple[int, ...], order: Tensor | None) -> PackedSequence:
    made = PackedSequence(data, from_numpy(np.array(sizes, np.int64)), order)
    made._sizes = sizes
    return made


def pad_packed_sequence(
    sequence: PackedSequence, batch_first: bool = False, padding_value: float = 0.0,
    total_length: int | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """[time, batch, ...] (batch first if so said) and lengths [batch] of packed sequences.

    ``padding_value`` fills the ends; ``total_length``: so many time steps, at least the
    longest sequence's.
    """
    sizes = sequence.sizes()
    if total_length is not None and total_length < len(sizes):
        raise ValueError(
            f"pad_packed_sequence: expected total_length to be at least the longest sequence's "
            f"{len(sizes)}, but got {total_length}"
        )
    padded, _ = pad_rows(sequence.data, sizes, padding_value, total_length)
    counts = (np.array(sizes)[:, None] > np.arange(sizes[0])).sum(0)
    lengths = from_numpy(counts.astype(np.int64))
    if sequence.unsorted_indices is not None:
        padded = index_select(padded, 1, sequence.unsorted_indices)
        lengths = index_select(lengths, 0, sequence.unsorted_indices)
    return (padded.transpose(0, 1) if batch_first else padded), lengths


def pad_sequence(
    sequences: Iterable[Tensor], batch_first: bool = False, padding_value: float = 0.0,
    padding_side: str = "right",
) -> Tensor:  # fmt: skip
    """One tensor [time, batch, ...] (batch first if so said) of tensors [length, ...]."""
    rows = list(sequences)
    if not rows:
        raise ShapeError("pad_sequence: received an empty list of sequences")
    if padding_side not in ("left", "right"):
        raise ShapeError(f"pad_sequence: padding_side is left or right, not {padding_side!r}")
    tails = {tuple(row.shape[1:]) for row in rows}
    if len(tails) > 1:
        raise ShapeError(
            f"pad_sequence: sequences may differ in dimension 0 only, not in {sorted(tails)}"
        )
    longest = max(row.shape[0] for row in rows)
    filled = []
    for row in rows:
        gap = row.new_full((longest - row.shape[0], *row.shape[1:]), padding_value)
        filled.append(cat([row, gap] if padding_side == "right" else [gap, row]))
    return stack(filled, 0 if batch_first else 1)


def unpad_sequence(
    padded_sequences: Tensor, lengths: Any, batch_first: bool = False
) -> list[Tensor]:
    """The sequences [lengths[i], ...] in a padded tensor, as a list."""
    rows = padded_sequences if batch_first else padded_sequences.transpose(0, 1)
    return [row[:count] for row, count in zip(rows, _numbers(lengths).tolist(), strict=True)]


def pack_sequence(sequences: Sequence[Tensor], enforce_sorted: bool = True) -> PackedSequence:
    """Pack a list of tensors [length, ...]; see :func:`pack_padded_sequence`."""
    lengths = [int(row.shape[0]) for row in sequences]
    return pack_padded_sequence(pad_sequence(sequences), lengths, False, enforce_sorted)


def unpack_sequence(packed_sequences: PackedSequence) -> list[Tensor]:
    """The sequences [length, ...] of a packed one, in the order they were given."""
    sizes = packed_sequences.sizes()
    counts = (np.array(sizes)[:, None] > np.arange(sizes[0])).sum(0)
    padded, _ = pad_rows(packed_sequences.data, sizes, 0.0)
    rows = [padded[:count, i] for i, count in enumerate(counts.tolist())]
    order = packed_sequences.unsorted_indices
    return rows if order is None else [rows[i] for i in order.tolist()]
