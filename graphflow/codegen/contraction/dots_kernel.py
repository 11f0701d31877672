"""The text of the kernel for products of small integers.

``mm_dots`` takes scalar products of rows of both operands where they lie: nothing is packed,
so 8-bit weights are read once, as they are stored.  A row, and a run of depth, may be a part
of a window of an image: tables say where they begin.  Words of the argument block are in the
order of :mod:`graphflow.codegen.contraction.small_integers`.
"""

from __future__ import annotations

from functools import cache

from graphflow.codegen.contraction.axes_kernels import TAKE, finished_rows, row_tables
from graphflow.codegen.schedule import KernelSource

AXES_AT = 22
"""Word of the first axis; an axis is an extent and its strides in a, b and c."""

_DOTS = '''\
"""c[i, j] = sum over k of a[i, k] * b[k, j], 8-bit numbers with 32-bit sums"""
from graphflow.codegen.contraction.micro_kernels import dots, place
from graphflow.codegen.prelude import call_epilogue, kernel, pointer_at_{element}, share
from graphflow.codegen.prelude import pointer_at_i32, pointer_at_i64

ROWS, COLUMNS = {rows}, {columns}  # of a tile
AXES_AT = {axes_at}


@kernel
def {name}(args, tid, nth):
    a = pointer_at_{element}(args[0])
    b = pointer_at_{element}(args[1])
    c = pointer_at_i32(args[2])
    m, n, batches = args[3], args[4], args[5]
    batch_axes, row_axes, depth_axes = args[6], args[7], args[8]
    # Depth is runs of neighbours; its outer axes count the pieces.
    pieces, depth_run = args[9], args[10]
    b_column, c_column = args[11], args[12]
    row_run, row_a, row_c = args[13], args[14], args[15]
    epilogue, block, batch_rows = args[16], args[17], args[18]
    steps = pointer_at_i64(args[19]) + tid * args[20]
    i_block = args[21]
    spots = steps + 2 * pieces
    row_targets = spots + i_block
    rows_at = AXES_AT + 4 * batch_axes
    depth_at = rows_at + 4 * row_axes
    for piece in range(pieces):
        steps[2 * piece] = place(args, depth_at, depth_axes, piece, 1)
        steps[2 * piece + 1] = place(args, depth_at, depth_axes, piece, 2)
    by_columns = n > m
    units = (n + COLUMNS - 1) // COLUMNS if by_columns else (m + ROWS - 1) // ROWS
{take}\
        i_begin, i_end, j_begin, j_end = 0, m, 0, n
        if by_columns:
            j_begin, j_end = first * COLUMNS, min(n, last * COLUMNS)
        else:
            i_begin, i_end = first * ROWS, min(m, last * ROWS)
        i0 = i_begin
        while i0 < i_end:
            i1 = min(i_end, i0 + i_block)
{row_tables}\
            j = j_begin
            while j < j_end:
                i = i0
                while i < i1:
                    dots(ROWS, COLUMNS, min(ROWS, i1 - i), min(COLUMNS, j_end - j),
                         a_batch, spots + (i - i0), b_batch + j * b_column, b_column,
                         steps, pieces, depth_run, c_batch + j * c_column,
                         row_targets + (i - i0), c_column)
                    i += ROWS
                j += COLUMNS
{finished}\
            i0 = i1
'''


@cache
def dots_kernel(element: str, rows: int, columns: int) -> KernelSource:
    """The kernel for ``"i8"`` or ``"u8"`` and tiles of ``rows`` by ``columns`` products."""
    name = f"mm_dots_{element}_{rows}x{columns}"
    text = _DOTS.format(
        name=name, element=element, rows=rows, columns=columns, axes_at=AXES_AT, take=TAKE,
        row_tables=row_tables(12), finished=finished_rows(12, "epilogue", "j_begin, j_end"),
    )  # fmt: skip
    return KernelSource(name, text)
