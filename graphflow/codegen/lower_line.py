"""Operations over whole lines of an axis (``Kind.LINE``): scans, sorts and searches.

They read memory in row-major order, so a strided operand is copied first; which
kernel they get, the ``line`` and ``reduction`` facts of the record say.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

from graphflow.codegen.contraction.call import rounded_up
from graphflow.codegen.contraction.kernels import TILED
from graphflow.codegen.contraction.tiling import tiling
from graphflow.codegen.kernel_writer import held_as
from graphflow.codegen.layout import Layout
from graphflow.codegen.line_kernels import (
    ABREAST,
    BUNDLE,
    DIGITS,
    PIECE,
    SIDE,
    first_kernel,
    scan_kernel,
    search_kernel,
    side_scan_kernel,
    sort_kernel,
)
from graphflow.codegen.schedule import Address, Argument, Call, KernelSource, Value
from graphflow.codegen.sizes import least
from graphflow.codegen.target import chosen_target
from graphflow.codegen.task import PARALLEL_OPERATIONS, LowerContext
from graphflow.errors import CompileError
from graphflow.ir.node import Node
from graphflow.ir.op import Line, Reduction
from graphflow.ir.types import (
    DType,
    TensorType,
    bool_,
    dtype_named,
    float32,
    float64,
    int32,
    int64,
    uint8,
    uint32,
    uint64,
)

ALL_BITS = -1
MOST_INT32 = 2**31 - 1
APART = 16
"""Rooms of threads are a multiple of so many elements: no two share a line of a cache."""
FEW_UNITS, FEW_LINES = 8, 8
"""Lines run down together where so many bundles are left to share, of at least so many each."""
LEAST_TURNED = 1 << 14
"""Scans of fewer elements are left to the kernel that compiles in half the time."""
FEW_WANTED = 8
"""Positions are few if there are so many times as many."""


def lower_line(
    node: Node, operands: Sequence[Layout], result: Layout, context: LowerContext
) -> Call:
    """The call that computes ``node`` from contiguous ``operands`` into ``result``."""
    line = node.op.line
    if line is None:
        raise CompileError(f"the record of {node.op.name} does not say what it does to lines")
    return _LOWER[line](node, operands, result, context)


def _scan(node: Node, operands: Sequence[Layout], result: Layout, context: LowerContext) -> Call:
    dtype = operands[0].type.dtype
    fold, held_type, identity = fold_of(node, dtype)
    element = element_of(dtype).short
    best = fold.element.reduction if fold.element is not None else None
    chosen = best.combine if fold.position and best is not None else ""
    facts = (node.op.name, element, held_type, fold.combine, identity, chosen)
    outer, count, inner = extents_of(operands[0].shape, node.attrs["axis"])
    backward = int(bool(node.attrs.get("reverse", False)))
    read = [*operands, None] if len(operands) == 1 else operands
    side = least(SIDE, -(-outer // FEW_UNITS)) if outer * count >= LEAST_TURNED else 1
    if inner == 1 and side >= FEW_LINES and _waits(fold, dtype):
        kernel, scratch = _side_scan(facts, len(operands), result, context)
        return _call(node, kernel, read, [result, *scratch], [outer, count, backward, side])
    kernel, threads = scan_kernel(*facts), context.threads
    held = context.temporary(TensorType(dtype_named(held_type), (threads, BUNDLE)))
    places = context.temporary(TensorType(int64, (threads, BUNDLE))) if fold.position else None
    return _call(node, kernel, read, [result, held, places], [outer, count, inner, backward])


def _waits(fold: Reduction, dtype: DType) -> bool:
    """Whether an element of a single line waits longer for the fold so far than it takes to put
    lines side by side and back: not integers, which are added in a cycle, nor plain sums of
    doubles, which fill twice the vectors."""
    dear = fold.position or "vm." in fold.combine
    return dtype.short in TILED and dtype.is_floating_point and (dear or dtype is float32)


def _side_scan(
    facts: tuple[str, str, str, str, str, str],
    operands: int,
    result: Layout,
    context: LowerContext,
) -> tuple[KernelSource, list[Layout | None]]:
    """The kernel that puts whole lines side by side, and the scratch for each thread."""
    _, element, held_type, _, _, best = facts
    types = dtype_named(element), result.type.dtype
    lanes = tuple(tiling(chosen_target(), dtype.itemsize).lanes for dtype in types)
    kernel = side_scan_kernel(*facts, lanes)

    def room(dtype: DType, items: int) -> Layout:
        return context.temporary(TensorType(dtype, (context.threads, items)))

    return kernel, [
        room(dtype_named(held_type), SIDE),
        room(int64, SIDE) if best else None,
        room(types[1], PIECE * SIDE),
        room(types[0], operands * PIECE * SIDE),
    ]


def fold_of(node: Node, dtype: DType) -> tuple[Reduction, str, str]:
    """How a scan folds, what its running values are held in, and the first of them as text."""
    fold = node.op.reduction
    if fold is None:
        raise CompileError(f"the record of {node.op.name} does not say how it folds")
    wide = element_of(dtype) if fold.position else accumulator_of(dtype)
    start = fold.identity(dtype)
    identity = repr(float(start)) if dtype.is_floating_point else str(int(start))
    return fold, held_as(wide), identity


def accumulator_of(dtype: DType) -> DType:
    """What running folds of ``dtype`` are held in: double, or all bits of a word."""
    if dtype.is_floating_point:
        return float64
    return uint64 if dtype is uint64 else int64


def element_of(dtype: DType) -> DType:
    """Booleans are bytes to these kernels."""
    return uint8 if dtype is bool_ else dtype


def _sort(node: Node, operands: Sequence[Layout], result: Layout, context: LowerContext) -> Call:
    dtype, axis = operands[0].type.dtype, node.attrs["axis"]
    outer, count, inner = extents_of(operands[0].shape, axis)
    wanted = result.shape[axis]
    kind, size = ("uint" if dtype is bool_ else dtype.kind), dtype.itemsize
    place = int32 if count <= MOST_INT32 else int64
    key = uint64 if size == 8 else uint32
    few = 0 < wanted * FEW_WANTED <= count
    make = first_kernel if few else sort_kernel
    kernel = make(kind, size, place.short, brain=dtype.short == "bf16")
    room = rounded_up(wanted, APART) if few else 2 * count
    rooms = context.threads if few else least(context.threads, outer * inner)
    tally = None if few else context.temporary(TensorType(int64, (rooms, DIGITS * size)))
    pairs = [context.temporary(TensorType(held, (rooms, room))) for held in (key, place)]
    mask = (ALL_BITS if size == 8 else (1 << (8 * size)) - 1) if node.attrs["descending"] else 0
    words = [outer, count, inner, mask, wanted, room]
    return _call(node, kernel, operands, [result, tally, *pairs], words)


def _search(node: Node, operands: Sequence[Layout], result: Layout, context: LowerContext) -> Call:
    dtype = operands[0].type.dtype
    kernel = search_kernel(element_of(dtype).short, node.attrs["right"])
    high = context.temporary(TensorType(int64, (context.threads, ABREAST)))
    return _call(node, kernel, operands, [result, high], search_words(*operands))


def search_words(lines: Layout, values: Layout) -> list[int]:
    """Values, elements of a line, values that share a line, and from one line to the next."""
    count, total = lines.shape[-1], prod(values.shape)
    one = len(lines.shape) == 1
    return [total, count, total if one else values.shape[-1], 0 if one else count]


_LOWER: dict[Line, Callable[[Node, Sequence[Layout], Layout, LowerContext], Call]] = {
    Line.SCAN: _scan,
    Line.SORT: _sort,
    Line.SEARCH: _search,
}


def extents_of(shape: Sequence[int], axis: int) -> tuple[int, int, int]:
    """Blocks before ``axis``, the extent of a line, elements after it."""
    return prod(shape[:axis]), shape[axis], prod(shape[axis + 1 :])


def _call(
    node: Node,
    kernel: KernelSource,
    operands: Sequence[Layout | None],
    written: Sequence[Layout | None],
    words: Sequence[int],
) -> Call:
    """The call with addresses first, then ``words``."""
    places = [*operands, *written]
    addresses: list[Argument] = [Value(0) if p is None else address_of(p) for p in places]
    elements = [prod(n.tensor_type.static_shape) for n in (node, node.inputs[0])]
    operations = round(max(elements) * node.op.cost)
    return Call(
        kernel=kernel,
        arguments=(*addresses, *map(Value, words)),
        reads=frozenset(layout.buffer for layout in operands if layout is not None),
        writes=frozenset(layout.buffer for layout in written if layout is not None),
        parallel=operations >= PARALLEL_OPERATIONS,
        flops=operations,
    )


def address_of(place: Layout) -> Address:
    """Where the first element of ``place`` lies."""
    return Address(place.buffer, place.offset * place.type.dtype.itemsize)
