"""What a program is about to reduce: the vectors of a run, known before it begins.

They get their places in one piece, and kernels may begin and finish their sums by themselves;
those kernels, and what the words of a vector's head mean, are in ``ir/ops/shared_sums.py``.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from functools import cache
from itertools import accumulate
from typing import Any, TypeAlias

import numpy as np

from graphflow.ir.op import ROOM_HEAD
from graphflow.ir.ops.collectives import AVERAGES
from graphflow.ir.ops.shared_sums import Head, State
from graphflow.ir.types import TensorType, from_numpy_dtype
from graphflow.records import dataclass
from graphflow.runtime.storage import address_of

LINE = 64  # bytes: what different ranks write has no cache line in common
LOOKS = 50_000
"""How often a kernel looks whether the other rank has come: one to three milliseconds."""

Wait: TypeAlias = Callable[[Any], None]
"""Returns when a request is done; raises when it never will be."""

_FIXED = struct.Struct(f"={len(Head) - Head.ARRIVED}q")


@dataclass(frozen=True, slots=True)
class Vector:
    """``count`` values to be reduced and multiplied by ``scale``; ``finite`` if they have to be."""

    count: int
    dtype: Any
    reduce: str
    scale: float = 1.0
    finite: bool = False
    parts: Sequence[TensorType] = ()
    """What lies there, end to end."""

    @property
    def room(self) -> int:
        """How many bytes it takes with its head, in whole cache lines."""
        return ROOM_HEAD + -(-self.count * int(self.dtype.itemsize) // LINE) * LINE

    @property
    def what(self) -> str:
        """How its reduction is called in messages."""
        return _named(self.dtype, self.count)

    @property
    def is_plain(self) -> bool:
        """Whether kernels know how to reduce it."""
        return bool(self.dtype == np.float32) and self.reduce in ("sum", *AVERAGES)


class Group:
    """The vectors that a program reduces in a run, in that order, one after the other in memory.

    ``waits(what, number)`` is how Python waits for what collective ``number`` needs that a kernel
    came to.  ``board`` has Head's words from SEEN to TEXT_WORDS, if there is a board, ``describe``
    what stands there for a collective.  Kernels look ``looks`` times for the other rank.
    """

    def __init__(
        self, vectors: Sequence[Vector], waits: Callable[[str, int], Wait],
        board: Sequence[int] = (), describe: Callable[[str], bytes] = str.encode,
        looks: int = LOOKS,
    ) -> None:  # fmt: skip
        self.vectors, self.waits, self._looks = vectors, waits, looks
        *self.offsets, self.bytes = accumulate((v.room for v in vectors), initial=0)
        """Where heads begin, and the size of all together, in bytes."""
        plain = all(v.is_plain for v in vectors)
        self.first_state = State.READY if plain else State.UNKNOWN
        """Whether kernels know how to reduce them."""
        self._board = board or (0,) * (Head.TEXT_WORDS - Head.SEEN + 1)
        self._texts = [np.frombuffer(describe(v.what), np.uint8).copy() for v in vectors]

    def describe(
        self, own: memoryview[int], begin: int, rows: Sequence[int], marks: Sequence[int]
    ) -> None:
        """Fill in all heads but for their STATE.

        The group begins at byte ``begin`` of this rank's row, whose words are ``own``, and at the
        addresses ``rows`` in those of the ranks; ``marks`` are Head's ARRIVED, READ and
        OTHER_ARRIVED.  Another rank's memory is not written to.
        """
        address, before = address_of(np.asarray(own)) + begin, 0
        for vector, offset, text in zip(self.vectors, self.offsets, self._texts, strict=True):
            fixed = _FIXED.pack(
                *marks, before, *(row + offset + ROOM_HEAD for row in rows), vector.count,
                _bits(vector.scale), vector.finite, self._looks, *self._board, address_of(text),
            )  # fmt: skip
            start = (begin + offset) // 8 + Head.ARRIVED
            own[start : start + len(fixed) // 8] = memoryview(fixed).cast("q")
            before = address + offset


@cache
def _named(dtype: Any, count: int) -> str:
    return f"all_reduce of {from_numpy_dtype(dtype).short}[{count}]"


@cache
def _bits(value: float) -> int:
    """The bits of a float32, as an integer."""
    return int(struct.unpack("=i", struct.pack("=f", value))[0])
