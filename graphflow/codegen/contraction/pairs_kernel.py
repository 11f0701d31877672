"""The text of the kernel for products of many rows of small integers by packed columns.

``mm_pairs`` widens rows of the first operand to 16 bits, a block of them at a time; its tiles
take two neighbours in depth of one row at once, and multiply them by those of a panel of
columns.  ``mm_quads`` leaves them 8 bits, and takes four.  Panels are packed before: for weights
that is done once.  Words of the argument block are in the order of
:mod:`graphflow.codegen.contraction.pairs_calls`.
"""

from __future__ import annotations

from functools import cache

from graphflow.codegen.contraction.axes_kernels import TAKE, finished_rows, row_tables
from graphflow.codegen.contraction.tiling import HEAD, height_text
from graphflow.codegen.schedule import KernelSource

AXES_AT = 20
"""Word of the first axis; an axis is an extent and its strides in a, b and c."""

_PAIRS = '''\
"""c[i, j] = sum over k of a[i, k] * b[k, j], 8-bit numbers with 32-bit sums, b in panels"""
from graphflow.codegen.contraction.micro_kernels import {copy}, place, {tile}
from graphflow.codegen.prelude import call_epilogue, kernel, pointer_at_{element}, share
from graphflow.codegen.prelude import {pointers}

HEIGHT, WIDTH = {height}, {width}  # of a tile
AXES_AT = {axes_at}


@kernel
def {name}(args, tid, nth):
    a = pointer_at_{element}(args[0])
    b = pointer_at_{element}(args[1])
    c = pointer_at_i32(args[2])
    m, n, batches = args[3], args[4], args[5]
    batch_axes, row_axes, depth_axes = args[6], args[7], args[8]
    # Depth is runs of neighbours, each filled up to whole groups of them.
    pieces, depth_run = args[9], args[10]
    row_run, row_a, row_c = args[11], args[12], args[13]
    epilogue, block, batch_rows = args[14], args[15], args[16]
    room = args[17] + tid * args[18] * 8
    i_block = args[19]
    steps = pointer_at_i64(room)
    spots = steps + pieces
    row_targets = spots + i_block
    wide = pointer_at_{number}(room + (pieces + 2 * i_block) * 8)
    pitch = pieces * ((depth_run + {group} - 1) // {group} * {group})
    room_of_row = pitch + {head}
    rows_at = AXES_AT + 4 * batch_axes
    depth_at = rows_at + 4 * row_axes
    for piece in range(pieces):
        steps[piece] = place(args, depth_at, depth_axes, piece, 1)
    by_columns = n > m
    units = (n + WIDTH - 1) // WIDTH if by_columns else (m + HEIGHT - 1) // HEIGHT
{take}\
        i_begin, i_end, j_begin, j_end = 0, m, 0, n
        if by_columns:
            j_begin, j_end = first * WIDTH, min(n, last * WIDTH)
        else:
            i_begin, i_end = first * HEIGHT, min(m, last * HEIGHT)
        i0 = i_begin
        while i0 < i_end:
            i1 = min(i_end, i0 + i_block)
{row_tables}\
            for row in range(i1 - i0):
                {copy}(a_batch + spots[row], steps, pieces, depth_run, wide + row * room_of_row)
            j = j_begin
            while j < j_end:
                i = i0
                while i < i1:
                    left = i1 - i
                    rows = {choose_rows}
                    {tile}(HEIGHT, rows, b_batch + j * pitch, wide + (i - i0) * room_of_row, pitch,
                          c_batch + j, row_targets + (i - i0), min(WIDTH, j_end - j))
                    i += rows
                j += WIDTH
{finished}\
            i0 = i1
'''


@cache
def pairs_kernel(element: str, group: int, height: int, width: int) -> KernelSource:
    """The kernel for ``"i8"`` or ``"u8"`` and tiles of ``height`` rows by ``width`` columns, of
    which ``group`` neighbours in depth lie together."""
    tile, copy, number, head = (
        ("quads", "gather", element, HEAD) if group == 4 else ("pairs", "widen", "i16", 0)
    )
    pointers = ", ".join(
        f"pointer_at_{kind}" for kind in dict.fromkeys((number, "i32", "i64")) if kind != element
    )
    name = f"mm_{tile}_{element}_{height}x{width}"
    text = _PAIRS.format(
        name=name, element=element, height=height, width=width, axes_at=AXES_AT, take=TAKE,
        tile=tile, copy=copy, number=number, head=head, group=group, pointers=pointers,
        row_tables=row_tables(12), choose_rows=height_text(height),
        finished=finished_rows(12, "epilogue", "j_begin, j_end"),
    )  # fmt: skip
    return KernelSource(name, text)
