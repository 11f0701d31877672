"""Calls of every primitive, generated from the facts in its record.

A case is an operation with operands and attributes.  Elementwise operations
are tried on shapes that their arity implies, everything else on the record's
samples.  Operands are drawn from the record's domain with a seed made from the
case's label, so that a failing label is all it takes to repeat it.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphflow.ir.build import emit, input_node
from graphflow.ir.graph import Graph
from graphflow.ir.op import Kind, OpDef, Sample, all_ops
from graphflow.ir.types import DType, TensorType, dtype_named, from_numpy_dtype

UNARY_SHAPES: tuple[Any, ...] = ((), (1,), (5,), (2, 3), (0, 3), (2, 0, 3))
BINARY_SHAPES: tuple[Any, ...] = (
    ((), ()), ((3,), ()), ((), (2, 3)), ((2, 3), (2, 3)), ((2, 3), (3,)), ((2, 1), (1, 3)),
    ((0, 3), (1, 3)), ((4, 1, 2), (3, 1)), ((1,), (0,)),
)  # fmt: skip


@dataclass(frozen=True)
class Case:
    """One call: what the tests run."""

    label: str
    op: OpDef
    dtype: DType
    arrays: tuple[np.ndarray, ...]
    attrs: Mapping[str, Any]

    def graph(self) -> Graph:
        """The call as a graph whose inputs are the operands."""
        leaves = tuple(
            input_node(f"x{i}", TensorType(from_numpy_dtype(a.dtype), a.shape))
            for i, a in enumerate(self.arrays)
        )
        return Graph(inputs=leaves, outputs=(emit(self.op, *leaves, **self.attrs),))

    def rng(self) -> np.random.Generator:
        """Random numbers that depend on the label only."""
        return np.random.default_rng(seed_of(self.label))


def seed_of(label: str) -> int:
    """The seed that a label stands for."""
    return zlib.crc32(label.encode())


def samples(op: OpDef) -> Iterator[Sample]:
    """The shapes that the kind implies, then the record's own samples."""
    if op.kind is Kind.ELEMENTWISE:
        arity = len(op.vjp) if isinstance(op.vjp, tuple) else _arity(op)
        if arity == 1 and not any(s.attrs for s in op.tests.samples):
            yield from (Sample((shape,)) for shape in UNARY_SHAPES)
        if arity == 2:
            yield from (Sample(pair) for pair in BINARY_SHAPES)
    yield from op.tests.samples


def _arity(op: OpDef) -> int:
    """How many operands a non-differentiable elementwise operation takes."""
    for arity in (1, 2, 3):
        for short in op.tests.dtypes:
            try:
                op.infer([TensorType(dtype_named(short), ())] * arity, {})
            except Exception:
                continue
            return arity
    raise AssertionError(f"{op.name} takes neither one nor two operands of {op.tests.dtypes}")


def cases(op: OpDef, dtypes: tuple[str, ...] | None = None) -> Iterator[Case]:
    """Every case of one operation."""
    for short in op.tests.dtypes:
        if dtypes is not None and short not in dtypes:
            continue
        dtype = dtype_named(short)
        for number, sample in enumerate(samples(op)):
            label = f"{op.name}-{short}-{number}"
            arrays = draw(op, dtype, sample, label)
            if arrays is not None:
                yield Case(label, op, dtype, arrays, sample.attrs)


def all_cases(dtypes: tuple[str, ...] | None = None) -> list[Case]:
    """Every case of every operation."""
    return [case for op in all_ops() for case in cases(op, dtypes)]


def draw(op: OpDef, dtype: DType, sample: Sample, label: str) -> tuple[np.ndarray, ...] | None:
    """The operands of ``sample`` in ``dtype``; None if its data does not exist there."""
    rng = np.random.default_rng(seed_of(label))
    arrays = []
    for position, operand in enumerate(sample.inputs):
        if isinstance(operand, tuple):
            arrays.append(random_array(rng, operand, dtype, interval(op, position)))
        elif operand.dtype != np.float64:
            arrays.append(operand)
        elif dtype.is_floating_point or dtype.is_complex:
            arrays.append(operand.astype(dtype.numpy))
        else:
            return None
    return tuple(arrays)


def interval(op: OpDef, position: int) -> tuple[float, float]:
    """The domain of one operand."""
    domain: Any = op.tests.domain
    low, high = domain[position] if isinstance(domain[0], tuple) else domain
    return float(low), float(high)


def random_array(
    rng: np.random.Generator, shape: tuple[int, ...], dtype: DType, domain: tuple[float, float]
) -> np.ndarray:
    """Numbers of ``dtype`` in ``domain``; whole ones avoid 0 where the domain does."""
    low, high = domain
    if dtype.kind == "bool":
        return rng.integers(0, 2, shape).astype(np.bool_)
    if dtype.is_complex:
        parts = rng.uniform(low, high, (2, *shape))
        return np.asarray(parts[0] + 1j * parts[1]).astype(dtype.numpy)
    if dtype.is_floating_point:
        return np.asarray(rng.uniform(low, high, shape)).astype(dtype.numpy)
    if dtype.kind == "uint":
        low, high = max(low, 0.0), max(high, 1.0)
    return rng.integers(int(np.ceil(low)), int(np.floor(high)) + 1, shape).astype(dtype.numpy)


def strided(array: np.ndarray) -> np.ndarray:
    """The same values where no axis is contiguous: every second element, backwards."""
    if array.ndim == 0:
        return array
    room = np.zeros(tuple(2 * n for n in array.shape[::-1]), array.dtype)
    view = room.T[tuple(slice(None, None, -2) for _ in array.shape)]
    view[...] = array
    return view
