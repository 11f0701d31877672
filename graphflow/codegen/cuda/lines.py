"""CUDA kernels over whole lines: scans, sorts and searches.

A scan runs in slices as wide as a block: the threads scan a slice in shared memory, by
doubling, and carry its last element into the next.  A sort orders pairs of key and position
by a bitonic network, which equal keys leave in order since positions differ.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from graphflow.codegen.cuda.line_kernels import scan_kernel, search_kernel, sort_kernel
from graphflow.codegen.kernel_writer import held_as
from graphflow.codegen.layout import Layout
from graphflow.codegen.lower_line import accumulator_of, element_of, extents_of
from graphflow.codegen.schedule import Address, Argument, Call, KernelSource, Value
from graphflow.codegen.task import LowerContext
from graphflow.errors import CompileError
from graphflow.ir.node import Node
from graphflow.ir.op import Line
from graphflow.ir.types import TensorType, bool_, int64, uint64


def lower_lines(
    node: Node, operands: Sequence[Layout], result: Layout, context: LowerContext
) -> list[Call]:
    """The calls that compute ``node`` from contiguous ``operands`` into ``result``."""
    if node.op.line is Line.SCAN:
        return [_scan(node, operands, result)]
    if node.op.line is Line.SORT:
        return [_sort(node, operands, result, context)]
    if node.op.line is Line.SEARCH:
        return [_search(node, operands, result)]
    raise CompileError(f"the record of {node.op.name} does not say what it does to lines")


def _scan(node: Node, operands: Sequence[Layout], result: Layout) -> Call:
    fold = node.op.reduction
    if fold is None:
        raise CompileError(f"the record of {node.op.name} does not say how it folds")
    dtype = operands[0].type.dtype
    wide = element_of(dtype) if fold.position else accumulator_of(dtype)
    start = fold.identity(dtype)
    identity = repr(float(start)) if dtype.is_floating_point else str(int(start))
    kernel = scan_kernel(
        node.op.name, dtype.short, held_as(wide), fold.combine, identity, fold.position
    )
    outer, count, inner = extents_of(operands[0].shape, node.attrs["axis"])
    words = [outer * inner, count, inner, int(bool(node.attrs.get("reverse", False)))]
    return _call(kernel, operands, [result], words, outer * inner)


def _sort(node: Node, operands: Sequence[Layout], result: Layout, context: LowerContext) -> Call:
    dtype = operands[0].type.dtype
    outer, count, inner = extents_of(operands[0].shape, node.attrs["axis"])
    kind = "uint" if dtype is bool_ else dtype.kind
    kernel = sort_kernel(kind, dtype.itemsize, brain=dtype.short == "bf16")
    room = 1
    while room < count:
        room *= 2
    keys = context.temporary(TensorType(uint64, (outer * inner, room)))
    places = context.temporary(TensorType(int64, (outer * inner, room)))
    flip = int(bool(node.attrs["descending"]))
    words = [outer * inner, count, inner, room, flip]
    return _call(kernel, operands, [result, keys, places], words, outer * inner)


def _search(node: Node, operands: Sequence[Layout], result: Layout) -> Call:
    lines, values = operands
    count = lines.shape[-1]
    kernel = search_kernel(lines.type.dtype.short, node.attrs["right"])
    one = len(lines.shape) == 1
    total = prod(values.shape)
    words = [total, count, total if one else values.shape[-1], 0 if one else count]
    return _call(kernel, operands, [result], words, total)


def _call(
    kernel: KernelSource,
    operands: Sequence[Layout],
    written: Sequence[Layout],
    words: Sequence[int],
    items: int,
) -> Call:
    addresses: list[Argument] = [
        Address(p.buffer, p.offset * p.type.dtype.itemsize) for p in (*operands, *written)
    ]
    return Call(
        kernel=kernel,
        arguments=(*addresses, *map(Value, words)),
        reads=frozenset(layout.buffer for layout in operands),
        writes=frozenset(layout.buffer for layout in written),
        parallel=True,
        items=items,
    )
