"""A library of products in NumPy, by cuBLASLt's documented meaning, in place of cuBLASLt.

https://docs.nvidia.com/cuda/cublas/#cublasltmatmul: element (i, j) of a matrix lies at
``i + j * leading``, matrix number ``n`` of a batch ``n * step`` after the first.  Memory is the
simulator's, which is ordinary: operands are taken from their addresses alone.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphflow.codegen.cuda import parted
from graphflow.codegen.cuda.epilogue import gelu
from graphflow.codegen.cuda.matmul import Matmul, Matrix
from graphflow.errors import GraphFlowError
from graphflow.ir.types import dtype_named
from graphflow.runtime.cuda import library
from tests.cudasim.numpy_convolutions import NumpyConvolutions

Array = np.ndarray[Any, Any]


def at(address: int, matrix: Matrix, number: int) -> Array:
    """Matrix ``number`` of a batch as a view of memory, strides being all that is known."""
    dtype = dtype_named(matrix.dtype).numpy
    count = (matrix.columns - 1) * matrix.leading + matrix.rows
    start = address + number * matrix.step * dtype.itemsize
    assert start % dtype.itemsize == 0 and matrix.leading >= matrix.rows >= 1
    memory = (ctypes.c_uint8 * (count * dtype.itemsize)).from_address(start)
    strides = (dtype.itemsize, matrix.leading * dtype.itemsize)
    return np.ndarray((matrix.rows, matrix.columns), dtype, memory, 0, strides)


def execute(matmul: Matmul, addresses: Sequence[int]) -> None:
    """``cublasLtMatmul`` on the host, in float64."""
    a, b, c, d, bias = addresses
    finish = {"": lambda x: x, "relu": lambda x: np.maximum(x, 0), "gelu": gelu}[matmul.activation]
    for n in range(matmul.batch):
        left, right = (
            (x.T if turned else x).astype(np.float64)
            for x, turned in (
                (at(a, matmul.a, n), matmul.transpose_a),
                (at(b, matmul.b, n), matmul.transpose_b),
            )
        )
        total = matmul.alpha * (left @ right)
        if matmul.beta:
            total += matmul.beta * at(c, matmul.c, n).astype(np.float64)
        if matmul.bias:
            vector = Matrix(matmul.d.dtype, matmul.d.rows, 1, matmul.d.rows, matmul.bias_step)
            total += at(bias, vector, n).astype(np.float64)
        result = at(d, matmul.d, n)
        assert total.shape == result.shape
        result[...] = finish(total).astype(result.dtype)


class NumpyLibrary:
    """The stand-in: notes what it was asked for, and refuses ``refused`` compute types."""

    name = "NumPy's library"

    def __init__(self) -> None:
        self.prepared_for: list[tuple[Matmul, tuple[int, ...]]] = []
        self.calls: list[Matmul] = []
        self.refused: set[str] = set()

    def prepared(self, matmul: Matmul, alignments: tuple[int, ...]) -> Any:
        if matmul.compute in self.refused:
            raise GraphFlowError(f"{self.name}: nothing for {matmul.compute}")
        self.prepared_for.append((matmul, alignments))

        def launch(addresses: Sequence[int], stream: Any) -> None:
            self.calls.append(matmul)
            assert all(x % n == 0 for x, n in zip(addresses, alignments))
            execute(matmul, addresses)

        return launch


Put = Callable[[Any, str, Any], None]


def in_place_of_libraries(put: Put) -> tuple[NumpyLibrary, NumpyConvolutions]:
    """Stand-ins that programs made from now on use, for small products too; ``put`` is
    ``setattr``, or undoes it later."""
    made = NumpyLibrary(), NumpyConvolutions()
    put(library, "library", lambda device, kind=Matmul: made[kind is not Matmul])
    put(parted, "LEAST_WORK", 0)
    return made


def in_place_of_cublas(put: Put) -> NumpyLibrary:
    """The same where there is no cuDNN."""
    made = in_place_of_libraries(put)[0]
    put(library, "library", lambda device, kind=Matmul: made if kind is Matmul else "no cuDNN")
    return made


def in_place_of_cudnn(put: Put) -> NumpyConvolutions:
    """The same where there is no cuBLASLt."""
    made = in_place_of_libraries(put)[1]
    put(library, "library", lambda device, kind=Matmul: "no cuBLASLt" if kind is Matmul else made)
    return made
