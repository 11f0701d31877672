"""Factors and solutions of many small matrices: calls of kernels, a matrix a thread."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from graphflow.codegen.elimination_kernels import (
    BLOCK,
    cholesky_kernel,
    clear_kernel,
    determinant_kernel,
    lu_kernel,
    solve_kernel,
    triangular_kernel,
)
from graphflow.codegen.layout import Layout
from graphflow.codegen.lower_line import address_of
from graphflow.codegen.schedule import Call, KernelSource, Value
from graphflow.codegen.sizes import example_of, is_fixed
from graphflow.codegen.task import PARALLEL_OPERATIONS, LowerContext
from graphflow.ir.node import Node
from graphflow.ir.op import Elimination
from graphflow.ir.types import TensorType, float32, float64, uint8

LARGEST = 128
"""Rows and columns of matrices that stay in the caches of a core: LAPACK is quicker for others …"""
LARGEST_ALONE = 1024
"""… but what NumPy has no routine for is the kernels' while scratch memory is moderate."""
_ALONE = (Elimination.LU, Elimination.TRIANGULAR)
_CAN_REFUSE = (Elimination.SOLVE, Elimination.CHOLESKY)
ROW_COST = 48
"""Operations that beginning with a row costs as much as."""


def lower_elimination(
    node: Node, operands: Sequence[Layout], results: Sequence[Layout], context: LowerContext
) -> tuple[list[Call], Layout | None] | None:
    """The calls that compute ``node`` from contiguous operands, and the byte that says whether a
    matrix was refused, if one may be; None where that would not be quick."""
    kind, a, right = node.op.elimination, operands[0], operands[1:]
    assert kind is not None
    dtype, (rows, columns), batch = a.type.dtype, a.shape[-2:], results[0].shape
    if kind is not Elimination.DETERMINANT:
        batch = batch[:-2]
    more = right[0].shape[-1] if right else 0
    count = prod(batch)
    steps = [_step(operand, count) for operand in operands]
    sizes = (rows, columns, more)
    if (
        dtype not in (float32, float64)
        or any(0 in x.shape for x in (*operands, *results))
        or not all(map(is_fixed, sizes))
        or max(sizes[: 2 if kind in _ALONE else 3]) > (LARGEST_ALONE if kind in _ALONE else LARGEST)
        or None in steps
    ):
        return None
    refused = context.temporary(TensorType(uint8, (1,))) if kind in _CAN_REFUSE else None
    width = BLOCK if kind is Elimination.TRIANGULAR else columns + more
    work = context.temporary(TensorType(float64, (context.threads, rows * width)))
    row = context.temporary(TensorType(float64, (context.threads, width)))
    places = [*operands, *results, *([] if refused is None else [refused]), work, row]
    words = (
        rows * width, width, count, *sizes, *(n or 0 for n in steps),
        *([0] * (2 - len(steps))),
    )  # fmt: skip
    flops = count * rows * min(rows, columns) * (ROW_COST + columns + 2 * more) // 2
    call = Call(
        kernel=_kernel(node, kind, dtype.short),
        arguments=(*map(address_of, places), *map(Value, words)),
        reads=frozenset(x.buffer for x in operands),
        writes=frozenset(x.buffer for x in places[len(operands) :]),
        parallel=example_of(flops) >= PARALLEL_OPERATIONS,
        bytes=sum(prod(x.shape) * x.type.dtype.itemsize for x in (*operands, *results)),
        flops=flops,
    )
    if refused is None:
        return [call], None
    written = frozenset((refused.buffer,))
    clear = Call(clear_kernel(), (address_of(refused),), frozenset(), written, parallel=False)
    return [clear, call], refused


def _step(operand: Layout, count: int) -> int | None:
    """From one matrix of ``operand`` to the next; 0 if there is one for all."""
    *batch, rows, columns = operand.shape
    if prod(batch) == count:
        return rows * columns
    return 0 if all(extent == 1 for extent in batch) else None


def _kernel(node: Node, kind: Elimination, element: str) -> KernelSource:
    if kind is Elimination.TRIANGULAR:
        return triangular_kernel(element, node.attrs["upper"], node.attrs["unitriangular"])
    return _KERNELS[kind](element)


_KERNELS = {
    Elimination.LU: lu_kernel,
    Elimination.DETERMINANT: determinant_kernel,
    Elimination.SOLVE: solve_kernel,
    Elimination.CHOLESKY: cholesky_kernel,
}
