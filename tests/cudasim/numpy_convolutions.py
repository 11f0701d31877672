"""Convolutions in NumPy, by cuDNN's documented meaning, in place of cuDNN."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np

from graphflow.codegen.cuda.convolution import FORWARD, Convolution, Tensor
from graphflow.errors import GraphFlowError
from graphflow.ir.types import dtype_named

Array = np.ndarray[Any, Any]


def convolve(what: Convolution, arrays: Sequence[Array]) -> Array:
    """The response, or the gradient of the filter, in float64; ``arrays`` are image, filter and
    response."""
    image, filter, response = (np.asarray(x) for x in arrays)
    image = np.pad(image, [(0, 0), (0, 0), *zip(what.low, what.high)])
    taps, places = filter.shape[2:], response.shape[2:]
    for size, p, t, s, d in zip(image.shape[2:], places, taps, what.steps, what.dilations):
        assert p == (size - (t - 1) * d - 1) // s + 1, "the extent that cuDNN computes"
    groups, k = what.groups, filter.shape[0] // what.groups
    c = filter.shape[1]
    assert image.shape[1] == groups * c and response.shape[1] == filter.shape[0]
    forward = what.form == FORWARD
    total = np.zeros(response.shape if forward else filter.shape)
    for tap in product(*map(range, taps)):
        begin = [t * d for t, d in zip(tap, what.dilations)]
        window = tuple(
            slice(b, b + (p - 1) * s + 1, s) for b, p, s in zip(begin, places, what.steps)
        )
        part = image[(slice(None), slice(None), *window)].astype(np.float64)
        for g in range(groups):
            own, out = slice(g * c, g * c + c), slice(g * k, g * k + k)
            if forward:
                weights = filter[(out, slice(None), *tap)].astype(np.float64)
                total[:, out] += np.einsum("nc...,kc->nk...", part[:, own], weights)
            else:
                losses = response[:, out].astype(np.float64)
                flat = [x.reshape(*x.shape[:2], -1) for x in (part[:, own], losses)]
                total[(out, slice(None), *tap)] = np.einsum("ncp,nkp->kc", *flat)
    return total


def at(address: int, tensor: Tensor) -> Array:
    """A tensor as a view of memory, strides being all that is known."""
    dtype = dtype_named(tensor.dtype).numpy
    count = sum((n - 1) * s for n, s in zip(tensor.extents, tensor.strides)) + 1
    assert address % dtype.itemsize == 0 and min(tensor.strides) > 0
    memory = (ctypes.c_uint8 * (count * dtype.itemsize)).from_address(address)
    strides = tuple(s * dtype.itemsize for s in tensor.strides)
    return np.ndarray(tensor.extents, dtype, memory, 0, strides)


class NumpyConvolutions:
    """The stand-in: notes what it was asked for, and refuses ``refused`` forms, and to pad unless
    it ``pads``."""

    name = "NumPy's convolutions"

    def __init__(self) -> None:
        self.prepared_for: list[tuple[Convolution, tuple[int, ...]]] = []
        self.calls: list[Convolution] = []
        self.refused: set[str] = set()
        self.pads = True

    def prepared(self, asked: Convolution, alignments: tuple[int, ...]) -> Any:
        if asked.form in self.refused:
            raise GraphFlowError(f"{self.name}: nothing for {asked.form}")
        if min(alignments) < 16:
            raise GraphFlowError(f"{self.name} wants arrays at multiples of 16 bytes")
        if any((*asked.low, *asked.high)) and not self.pads:
            raise GraphFlowError(f"{self.name}: no zeros around")
        self.prepared_for.append((asked, alignments))

        def launch(addresses: Sequence[int], stream: Any) -> None:
            self.calls.append(asked)
            assert all(x % n == 0 for x, n in zip(addresses, alignments))
            arrays = [
                at(x, t) for x, t in zip(addresses, (asked.image, asked.filter, asked.response))
            ]
            result = arrays[2 if asked.form == FORWARD else 1]
            result[...] = convolve(asked, arrays).astype(result.dtype)

        return launch
