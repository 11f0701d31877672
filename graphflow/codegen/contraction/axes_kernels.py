"""The texts of kernels for products whose rows, columns or depth run over several axes.

They are products of matrices for whom a row is not a constant distance from the next:
windows of an image, or any two-operand ``einsum``.  ``mm_axes`` packs both operands
rectangle by rectangle, as far as one axis goes, and multiplies by the register tiles of
every product; ``mm_axes_plain`` is a loop for the element types without tiles.  Words of
the argument block are in the order of :mod:`graphflow.codegen.contraction.axes`.
"""

from __future__ import annotations

from functools import cache

from graphflow.codegen.contraction.tiling import Tiling, heights
from graphflow.codegen.schedule import KernelSource

AXES_AT = 26
"""Word of the first axis; an axis is an extent and its strides in a, b and c."""

_ARGUMENTS = """\
    a = pointer_at_{element}(args[0])
    b = pointer_at_{element}(args[1])
    c = pointer_at_{element}(args[2])
    m, n, k, batches = args[3], args[4], args[5], args[6]
    batch_axes, row_axes, column_axes, depth_axes = args[7], args[8], args[9], args[10]
    rows_at = AXES_AT + 4 * batch_axes
    columns_at = rows_at + 4 * row_axes
    depth_at = columns_at + 4 * column_axes
"""

_TAKE = """\
    unit, last_unit = share(batches * units, tid, nth)
    while unit < last_unit:
        batch = unit // units
        first = unit - batch * units
        last = min(units, first + last_unit - unit)
        unit += last - first
        a_batch = a + place(args, AXES_AT, batch_axes, batch, 1)
        b_batch = b + place(args, AXES_AT, batch_axes, batch, 2)
        c_batch = c + place(args, AXES_AT, batch_axes, batch, 3)
"""

_TILED = '''\
"""c[i, j] = sum over k of a[i, k] * b[k, j], where i, j and k run over several axes"""
from graphflow.codegen.contraction.micro_kernels import pack, place, tile
from graphflow.codegen.prelude import kernel, pointer_at_{element}, pointer_at_i64, share

LANES, VECTORS, HEIGHT = {lanes}, {vectors}, {height}
WIDTH = {width}  # columns of a tile and of a packed panel of b
STRIP = {strip}  # row length of a packed strip of a
AXES_AT = {axes_at}


@kernel
def {name}(args, tid, nth):
{arguments}\
    k_block, n_block = args[11], args[12]
    room = args[13] + tid * args[14] * {itemsize}
    panels = pointer_at_{element}(room)
    strip, spare = panels + args[15], panels + args[16]
    spots = pointer_at_i64(room + args[17] * {itemsize})
    pack_a, a_row, a_step, c_row = args[18], args[19], args[20], args[21]
    # The innermost axis of each kind, along which rectangles are packed.
    row_run, row_step, column_run, column_step = args[22], args[23], args[24], args[25]
    depth_word = depth_at + 4 * (depth_axes - 1)
    depth_run, a_inner, b_inner = args[depth_word], args[depth_word + 1], args[depth_word + 2]
    column_units, row_units = (n + WIDTH - 1) // WIDTH, (m + HEIGHT - 1) // HEIGHT
    column_cost = (batches * column_units + nth - 1) // nth * WIDTH * m
    row_cost = (batches * row_units + nth - 1) // nth * HEIGHT * n
    by_columns = column_cost <= row_cost
    units = column_units if by_columns else row_units
{take}\
        i_begin, i_end, j_begin, j_end = 0, m, 0, n
        if by_columns:
            j_begin, j_end = first * WIDTH, min(n, last * WIDTH)
        else:
            i_begin, i_end = first * HEIGHT, min(m, last * HEIGHT)
        j0 = j_begin
        while j0 < j_end:
            j1 = min(j_end, j0 + n_block)
            for j in range(j0, j1):
                spots[j - j0] = place(args, columns_at, column_axes, j, 3)
            k0 = 0
            more = True
            while more:
                depth = min(k_block, k - k0)
                more = k0 + depth < k
                j = j0
                while j < j1:
                    # Pack the rectangles of b within panel j // WIDTH.
                    panel = panels + (j - j0) // WIDTH * WIDTH * depth
                    column = (j - j0) % WIDTH
                    run = min(min(WIDTH - column, j1 - j), column_run - j % column_run)
                    b_column = b_batch + place(args, columns_at, column_axes, j, 2)
                    step = 0
                    while step < depth:
                        steps = min(depth - step, depth_run - (k0 + step) % depth_run)
                        pack(LANES, WIDTH, WIDTH - column, panel + (step * WIDTH + column),
                             b_column + place(args, depth_at, depth_axes, k0 + step, 2),
                             column_step, b_inner, run, steps)
                        step += steps
                    j += run
                i = i_begin
                while i < i_end:
                    left = i_end - i
                    rows = {choose_rows}
                    a_tile = a_batch + (place(args, rows_at, row_axes, i, 1) + k0 * a_step)
                    tile_row, tile_step = a_row, a_step
                    if pack_a:
                        row = 0
                        while row < rows:
                            run = min(rows - row, row_run - (i + row) % row_run)
                            a_at = a_batch + place(args, rows_at, row_axes, i + row, 1)
                            step = 0
                            while step < depth:
                                steps = min(depth - step, depth_run - (k0 + step) % depth_run)
                                pack(LANES, STRIP, STRIP - row, strip + (step * STRIP + row),
                                     a_at + place(args, depth_at, depth_axes, k0 + step, 1),
                                     row_step, a_inner, run, steps)
                                step += steps
                            row += run
                        a_tile, tile_row, tile_step = strip, 1, STRIP
                    j = j0
                    while j < j1:
                        width = min(WIDTH, j1 - j)
                        begin, end = spots[j - j0], spots[j - j0 + width - 1]
                        direct = c_row >= 0 and end - begin == width - 1
                        c_tile, out_row = spare, WIDTH
                        if direct:
                            c_tile = c_batch + (begin + place(args, rows_at, row_axes, i, 3))
                            out_row = c_row
                        tile(LANES, VECTORS, HEIGHT, rows, a_tile, tile_row, tile_step,
                             panels + (j - j0) * depth, WIDTH, depth, c_tile, out_row,
                             width, k0 if direct else 0)
                        row = 0
                        while row < rows and not direct:
                            target = c_batch + place(args, rows_at, row_axes, i + row, 3)
                            for column in range(width):
                                spot = spots[j - j0 + column]
                                value = spare[row * WIDTH + column]
                                target[spot] = target[spot] + value if k0 else value
                            row += 1
                        j += WIDTH
                    i += rows
                k0 += depth
            j0 = j1
'''

_PLAIN = '''\
"""c[i, j] = sum over k of a[i, k] * b[k, j] over several axes each, accumulated as {total}"""
from graphflow.codegen.contraction.micro_kernels import place
from graphflow.codegen.prelude import kernel, pointer_at_{element}, share, {total}

AXES_AT = {axes_at}


@kernel
def {name}(args, tid, nth):
{arguments}\
    depth_word = depth_at + 4 * (depth_axes - 1)
    depth_run, a_inner, b_inner = args[depth_word], args[depth_word + 1], args[depth_word + 2]
    units = m
{take}\
        for i in range(first, last):
            a_row = a_batch + place(args, rows_at, row_axes, i, 1)
            c_row = c_batch + place(args, rows_at, row_axes, i, 3)
            for j in range(n):
                total = {total}(0)
                b_column = b_batch + place(args, columns_at, column_axes, j, 2)
                step = 0
                while step < k:
                    a_at = a_row + place(args, depth_at, depth_axes, step, 1)
                    b_at = b_column + place(args, depth_at, depth_axes, step, 2)
                    for inner in range(depth_run):
                        total += {total}(a_at[inner * a_inner]) * {total}(b_at[inner * b_inner])
                    step += depth_run
                c_row[place(args, columns_at, column_axes, j, 3)] = total
'''


def _source(template: str, name: str, element: str, **facts: object) -> KernelSource:
    text = template.format(
        name=name, element=element, axes_at=AXES_AT, take=_TAKE,
        arguments=_ARGUMENTS.format(element=element), **facts,
    )  # fmt: skip
    return KernelSource(name, text)


@cache
def tiled_axes_kernel(element: str, itemsize: int, tiling: Tiling) -> KernelSource:
    """The ``mm_axes`` kernel for ``"f32"`` or ``"f64"`` and the given tile."""
    *taller, lowest = heights(tiling.height)
    choose_rows = "".join(f"{h} if left >= {h} else " for h in taller) + str(lowest)
    name = f"mm_axes_{element}_{tiling.height}x{tiling.vectors}x{tiling.lanes}"
    return _source(
        _TILED, name, element, lanes=tiling.lanes, vectors=tiling.vectors, height=tiling.height,
        width=tiling.width, strip=tiling.strip, choose_rows=choose_rows, itemsize=itemsize,
    )  # fmt: skip


@cache
def plain_axes_kernel(element: str, total: str) -> KernelSource:
    """The loop for any element type, accumulating as ``total``."""
    return _source(_PLAIN, f"mm_axes_plain_{element}", element, total=total)
