"""Stacks of images: bytes in memory, and what transforms have yet to do to some of them.

A batch goes through its transforms as a :class:`Stack`, which takes down what they ask for and
does it at the end: by NumPy in place, or, where many batches have been alike, by a program
that picks and converts on all threads, with the same bits.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from graphflow.errors import IndexRangeError
from graphflow.functions.creation import from_numpy
from graphflow.ir.types import float32
from graphflow.mode import mode
from graphflow.utils.data.worker_process import get_worker_info
from graphflow.vision.transforms.convert import channel_values

if TYPE_CHECKING:
    from graphflow.tensor import Tensor

Array = np.ndarray[Any, Any]

ENOUGH = 1 << 22
"""Elements of batches, of images of one shape, after which a program pays: what compiling it takes
is no longer much beside an epoch, and small sets of images never get there."""

_made: dict[tuple[Any, ...], int] = {}


class Stack:
    """The ``rows`` of ``images``; if ``converted``, as float32 ``[rows, channels, height, width]``.

    ``images`` are bytes, ``[n, height, width]`` or ``[n, height, width, channels]``, ``rows``
    int64.  Conversion is ``pixel / 255``, then ``(pixel - mean) / deviation`` for each two of
    ``normals``, which are float32 ``[channels or 1, 1, 1]``.
    """

    __slots__ = ("converted", "images", "normals", "rows")

    def __init__(
        self,
        images: Array,
        rows: Array,
        converted: bool = False,
        normals: tuple[Tensor, ...] = (),
    ) -> None:
        self.images, self.rows = images, rows
        self.converted, self.normals = converted, normals

    @property
    def size(self) -> int:
        """Elements of the result."""
        return len(self.rows) * math.prod(map(int, self.images.shape[1:]))

    def to_tensors(self) -> Stack:
        """These images with values 0 … 1."""
        return Stack(self.images, self.rows, True, self.normals)

    def normalized(self, mean: bytes, deviation: bytes) -> Stack:
        """These images less a mean, over a deviation: float64, one or one a channel."""
        channels = 1 if self.images.ndim == 3 else self.images.shape[3]
        normals = (*self.normals, *_normals(mean, deviation, channels))
        return Stack(self.images, self.rows, True, normals)

    def tensor(self) -> Tensor:
        """The batch; ``IndexError`` names a row that there is not."""
        if self.often():
            given = from_numpy(self.images), from_numpy(self.rows)
            try:
                made: Tensor = _program(len(self.normals))(*given, *self.normals)
                return made
            except IndexRangeError:
                pass  # rows counted from the end, or none
        _made[self._likeness] = _made.get(self._likeness, 0) + self.size
        images = self.images.take(self.rows, 0)
        planes = images[:, None] if images.ndim == 3 else images.transpose(0, 3, 1, 2)
        array = np.array(planes, dtype=np.float32, order="C")
        np.divide(array, np.float32(255), out=array)
        for mean, deviation in _pairs(self.normals):
            np.subtract(array, mean.numpy(), out=array)
            np.divide(array, deviation.numpy(), out=array)
        return from_numpy(array)

    def often(self) -> bool:
        """True if a program may make this batch, and enough have been like it.

        Not in a worker process: its batches are a part of all, and there are others to wait for
        the same compiler.
        """
        if mode.tracer is not None or get_worker_info() is not None:
            return False
        return _made.get(self._likeness, 0) >= ENOUGH and self.images.flags.c_contiguous

    @property
    def _likeness(self) -> tuple[Any, ...]:
        return self.images.shape[1:], len(self.normals)


def _pairs(values: tuple[Any, ...]) -> zip[tuple[Any, Any]]:
    return zip(values[::2], values[1::2], strict=True)


@lru_cache(maxsize=64)
def _normals(mean: bytes, deviation: bytes, channels: int) -> tuple[Tensor, Tensor]:
    """Numbers given for channels as tensors, which are the same for every batch."""
    given = (np.frombuffer(values, np.float64) for values in (mean, deviation))
    made = (from_numpy(channel_values(values, channels, np.float32)) for values in given)
    return next(made), next(made)


@cache
def _program(count: int) -> Callable[..., Any]:
    """What :meth:`Stack.tensor` does, compiled, with ``count`` tensors in ``normals``."""
    from graphflow.api import compile

    def to_tensors(images: Tensor, rows: Tensor, *normals: Tensor) -> Any:
        taken: Any = images.index_select(0, rows)
        planes = taken.unsqueeze(1) if images.ndim == 3 else taken.permute(0, 3, 1, 2)
        made = planes.to(float32) / 255
        for mean, deviation in _pairs(normals):
            made = (made - mean) / deviation
        return made.contiguous()

    made: Callable[..., Any] = compile(
        to_tensors, dynamic={"images": {0: "all"}, "rows": {0: "some"}}
    )
    return made
