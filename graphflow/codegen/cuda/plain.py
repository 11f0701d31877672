"""The vocabulary of CUDA kernels in the simulator: plain Python on NumPy numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from graphflow.codegen import vector_math
from graphflow.codegen.plain import CASTS, add_fast, bf16, f16, mul_fast, select

VECTORS = (2, 4, 8)
"""How many neighbours are loaded or stored at once."""


def quotient(a: int, b: int) -> int:
    """``a // b`` of numbers from 0 to 2**31."""
    return a // b


def remainder(a: int, b: int) -> int:
    """``a % b`` of numbers from 0 to 2**31."""
    return a % b


def ahead(index: int, stride: int) -> int:
    """``index + stride``; the compiler is not told that it does not overflow, so it neither counts
    the trips of a loop that goes on so, nor unrolls it."""
    return index + stride


def _load(count: int) -> Callable[..., None]:
    def load(to: Any, place: int, memory: Any, index: int) -> None:
        _check(memory, index, count)
        to[place : place + count] = memory[index : index + count]

    load.__doc__ = f"Read {count} neighbours at once, which begin at a multiple of that."
    return load


def _store(count: int) -> Callable[..., None]:
    def store(memory: Any, index: int, source: Any, place: int) -> None:
        _check(memory, index, count)
        memory[index : index + count] = source[place : place + count]

    store.__doc__ = f"Write {count} neighbours at once, which begin at a multiple of that."
    return store


def _check(memory: Any, index: int, count: int) -> None:
    """A GPU gives up where this raises."""
    if not 0 <= index <= len(memory) - count:
        raise IndexError(f"{count} elements from {index} on, of {len(memory)}")
    size = memory.itemsize
    if (memory.ctypes.data + index * size) % (count * size):
        raise ValueError(f"{count} elements of {size} bytes from {index} on are not aligned")


def read(memory: Any, place: int) -> Any:
    """An element of memory that nothing writes while the kernel runs."""
    if place < 0:
        raise IndexError(f"element {place}")
    return memory[place]


NAMES: dict[str, Any] = {
    **CASTS, "f16": f16, "bf16": bf16, "select": select, "add_fast": add_fast,
    "mul_fast": mul_fast, "vm": vector_math, "quotient": quotient, "remainder": remainder,
    "read": read, "ahead": ahead,
    **{f"load_{count}": _load(count) for count in VECTORS},
    **{f"store_{count}": _store(count) for count in VECTORS},
}  # fmt: skip
