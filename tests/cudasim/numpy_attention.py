"""A library of attention in NumPy, in place of cuDNN: routines from addresses and strides alone.

Memory is the simulator's, which is ordinary.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphflow.codegen.library import Routine, Strided
from graphflow.errors import GraphFlowError
from graphflow.ir.op import lookup
from graphflow.ir.types import dtype_named
from graphflow.runtime.cuda import attention, routines

Array = np.ndarray[Any, Any]


def at(address: int, array: Strided) -> Array:
    """An array as a view of memory."""
    dtype = dtype_named(array.dtype).numpy
    assert address % attention.ALIGNED == 0 and min(array.strides, default=0) >= 0
    reach = 1 + sum((n - 1) * s for n, s in zip(array.shape, array.strides, strict=True))
    memory = (ctypes.c_uint8 * (reach * dtype.itemsize)).from_address(address)
    steps = tuple(step * dtype.itemsize for step in array.strides)
    return np.ndarray(array.shape, dtype, memory, 0, steps)


def execute(routine: Routine, addresses: Sequence[int]) -> None:
    """The routine by its record's reference, in single precision for halves."""
    op, attrs = lookup(routine.name), dict(routine.attrs)
    arrays = [at(*pair) for pair in zip(addresses, routine.arrays, strict=True)]
    count = 3 if routine.name == "attend" else 6
    for found, result in zip(op.reference(*arrays[:count], **attrs), arrays[count:], strict=True):
        assert found.shape == result.shape and found.dtype == result.dtype
        result[...] = found


class NumpyAttention:
    """The stand-in: notes what it was asked for, and refuses what ``refused`` says."""

    name = "NumPy's attention"

    def __init__(self) -> None:
        self.calls: list[Routine] = []
        self.refused = ""

    def refusal(self, routine: Routine) -> str:
        """What cuDNN's would say, or what it is told to."""
        return attention.unasked(routine) or self.refused

    def prepared(self, routine: Routine) -> Callable[[Sequence[int], Any], None]:
        """What starts it."""
        if self.refusal(routine):
            raise GraphFlowError(self.refusal(routine))

        def launch(addresses: Sequence[int], stream: Any) -> None:
            self.calls.append(routine)
            execute(routine, addresses)

        return launch


def in_place_of_cudnn(put: Callable[[Any, str, Any], None]) -> NumpyAttention:
    """A stand-in that programs made from now on use; ``put`` is ``setattr``, or undoes it."""
    made = NumpyAttention()
    put(routines, "library", lambda device: made)
    return made
