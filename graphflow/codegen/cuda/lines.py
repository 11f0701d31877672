"""CUDA kernels over whole lines: scans, sorts and searches.

A scan runs in slices as wide as a block: the threads scan a slice in shared memory, by
doubling, and carry its last element into the next.  A sort orders pairs of key and position
by a bitonic network, which equal keys leave in order since positions differ.
"""

from __future__ import annotations

from collections.abc import Sequence

from graphflow.codegen.cuda.line_kernels import scan_kernel, search_kernel, sort_kernel
from graphflow.codegen.layout import Layout
from graphflow.codegen.lower_line import address_of, extents_of, fold_of, search_words
from graphflow.codegen.schedule import Argument, Call, KernelSource, Value
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
    dtype = operands[0].type.dtype
    fold, held, identity = fold_of(node, dtype)
    kernel = scan_kernel(node.op.name, dtype.short, held, fold.combine, identity, fold.position)
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
    words = [outer * inner, count, inner, room, flip, result.shape[node.attrs["axis"]]]
    return _call(kernel, operands, [result, keys, places], words, outer * inner)


def _search(node: Node, operands: Sequence[Layout], result: Layout) -> Call:
    kernel = search_kernel(operands[0].type.dtype.short, node.attrs["right"])
    words = search_words(*operands)
    return _call(kernel, operands, [result], words, words[0])


def _call(
    kernel: KernelSource,
    operands: Sequence[Layout],
    written: Sequence[Layout],
    words: Sequence[int],
    items: int,
) -> Call:
    addresses: list[Argument] = [address_of(p) for p in (*operands, *written)]
    return Call(
        kernel=kernel,
        arguments=(*addresses, *map(Value, words)),
        reads=frozenset(layout.buffer for layout in operands),
        writes=frozenset(layout.buffer for layout in written),
        parallel=True,
        items=items,
    )
