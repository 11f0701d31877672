"""Run lowered calls on NumPy memory: what the tests of lowering share.

``Memory`` plays the schedule: it owns buffers, lays operands out (also strided,
also in place), lowers a body and runs its calls thread after thread.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from graphflow.codegen.layout import Layout, contiguous
from graphflow.codegen.lower import CPU, lower_group
from graphflow.codegen.plain import Arguments, load_function
from graphflow.codegen.schedule import Address, Argument, Call, KernelSource, Value
from graphflow.ir.graph import Graph
from graphflow.ir.types import TensorType, from_numpy_dtype

_functions: dict[str, Any] = {}


class Memory:
    """Buffers by number, and the context that lowering asks for."""

    threads = 3
    backend = CPU

    def __init__(self) -> None:
        self.buffers: list[np.ndarray[Any, Any]] = []
        self.failures: list[str] = []
        self.error = np.zeros(1, np.int64)
        self.buffers.append(self.error)

    # ---- the context of lowering -----------------------------------------------------

    def is_aligned(self, buffer: int) -> bool:
        return False

    def temporary(self, type: TensorType) -> Layout:
        return contiguous(self.add(filled(type.static_shape, type.dtype.numpy)), type)

    def failure(self, message: str) -> int:
        self.failures.append(message)
        return len(self.failures)

    def error_buffer(self) -> int:
        return 0

    # ---- memory ----------------------------------------------------------------------

    def add(self, array: np.ndarray[Any, Any]) -> int:
        self.buffers.append(array)
        return len(self.buffers) - 1

    def place(self, array: np.ndarray[Any, Any]) -> Layout:
        """The layout of an array that is any strided view of a one-dimensional buffer."""
        base = array if array.base is None else array.base
        assert isinstance(base, np.ndarray)
        base = base.reshape(-1) if base.flags.c_contiguous else base
        number = next((k for k, b in enumerate(self.buffers) if b is base), None)
        if number is None:
            if not np.shares_memory(base, array) and array.size:
                raise AssertionError("not a view of its base")
            number = self.add(base)
        start = self.buffers[number].ctypes.data
        offset = (array.ctypes.data - start) // array.itemsize if array.size else 0
        strides = tuple(s // array.itemsize for s in array.strides)
        type = TensorType(from_numpy_dtype(array.dtype), array.shape)
        return Layout(number, type, offset, strides)

    def new(self, type: TensorType) -> tuple[np.ndarray[Any, Any], Layout]:
        """A fresh result, full of garbage."""
        array = filled(type.static_shape, type.dtype.numpy)
        flat = array.reshape(-1)
        return array, contiguous(self.add(flat), type)

    # ---- running ---------------------------------------------------------------------

    def words(self, arguments: Sequence[Argument]) -> np.ndarray[Any, Any]:
        """The argument block of a call."""
        words = []
        for argument in arguments:
            if isinstance(argument, Address):
                words.append(self.buffers[argument.buffer].ctypes.data + argument.offset)
            else:
                assert isinstance(argument, Value)
                words.append(argument.value)
        return np.array(words, np.int64)

    def run(self, calls: Sequence[Call], threads: int = 1, compiled: bool = False) -> None:
        """Run the calls; the threads of one call in falling order, to catch dependence."""
        for call in calls:
            block = self.words(call.arguments)
            count = threads if call.parallel else 1
            for thread in reversed(range(count)):
                entry(call.kernel, compiled)(block.ctypes.data, thread, count)


def filled(shape: tuple[int, ...], dtype: Any) -> np.ndarray[Any, Any]:
    """An array of garbage: what is not written shows."""
    array = np.empty(shape, dtype)
    array.reshape(-1).view(np.uint8)[...] = 0x7B if dtype != np.bool_ else 1
    return array


def entry(kernel: KernelSource, compiled: bool) -> Any:
    """The kernel as a function of (argument block address, then integers)."""
    key = f"{kernel.name}{compiled}"
    if key not in _functions:
        _functions[key] = _compiled(kernel) if compiled else _plain(kernel)
    return _functions[key]


def _plain(kernel: KernelSource) -> Any:
    function = load_function(kernel.name, kernel.source, Path(f"{kernel.name}.py"))

    def run(address: int, *rest: int) -> None:
        with np.errstate(all="ignore"):
            function(Arguments(address), *rest)

    return run


def _compiled(kernel: KernelSource) -> Any:
    from graphflow.codegen.compile import compile_kernels
    from graphflow.runtime.linker import link

    address = link(compile_kernels([kernel]).objects)[kernel.name]
    count = 5 if kernel.epilogue else 2
    signature = ctypes.CFUNCTYPE(None, ctypes.c_void_p, *[ctypes.c_int64] * count)
    return signature(address)


def evaluate(
    body: Graph,
    operands: Sequence[np.ndarray[Any, Any]],
    threads: int = 1,
    compiled: bool = False,
    in_place: dict[int, int] | None = None,
) -> tuple[list[np.ndarray[Any, Any]], list[Call], Memory]:
    """Lower and run ``body``; result ``j`` overwrites operand ``in_place[j]``."""
    memory = Memory()
    layouts = [memory.place(x) for x in operands]
    results, places = [], []
    for j, node in enumerate(body.outputs):
        if in_place and j in in_place:
            results.append(operands[in_place[j]])
            places.append(layouts[in_place[j]])
        else:
            array, layout = memory.new(node.tensor_type)
            results.append(array)
            places.append(layout)
    calls = lower_group(body, layouts, places, memory)
    memory.run(calls, threads, compiled)
    return results, calls, memory
