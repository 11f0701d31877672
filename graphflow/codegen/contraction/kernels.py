"""The texts of the matmul kernels.

Four kernels multiply matrices: ``mm`` walks register tiles over packed panels;
``mm_dot`` takes scalar products where one side has very few rows and packing
the other would cost more than multiplying it; ``mm_row`` adds up the rows of a
matrix; ``mm_plain`` is a loop for the element types without tiles, and for short products
of integers.  Extents and
strides are arguments, in the order of :mod:`graphflow.codegen.contraction.call`;
so every product of one element type shares one kernel.
"""

from __future__ import annotations

from functools import cache

from graphflow.codegen.contraction.axes_kernels import finished_rows
from graphflow.codegen.contraction.tiling import LOW, Tiling, height_text, heights
from graphflow.codegen.schedule import KernelSource

TILED = ("f32", "f64", "i32", "u32", "i64", "u64")
"""Element types that register tiles multiply, with sums of the same type."""
FAVOUR_AT = 27
"""Word of what sharing by rows costs more than by columns (:mod:`graphflow.codegen.sharing`)."""
AXES_AT = 28
"""Word of the first batch axis; an axis is an extent and its strides in a, b and c."""
PACKING, READING = 8, 4
"""Elements that are multiplied in the time that one is packed, or read from afar."""
HOT_ITEMS = 2048
DOT_COLUMNS = 4
ROW_COLUMNS = 128  # a thread's least share of a row

_ARGUMENTS = """\
    a = pointer_at_{element}(args[0])
    b = pointer_at_{element}(args[1])
    c = pointer_at_{result}(args[2])
    m, n, k = args[3], args[4], args[5]
    a_row, a_step, b_step, b_column = args[6], args[7], args[8], args[9]
    c_row, c_column = args[10], args[11]
    axes, batches = args[12], args[13]
    epilogue, block, batch_rows, swapped = args[14], args[15], args[16], args[17]
"""

_TAKE = """\
    unit, last_unit = share(batches * units, tid, nth)
    while unit < last_unit:
        batch = unit // units
        first = unit - batch * units
        last = min(units, first + last_unit - unit)
        unit += last - first
        a_batch, b_batch, c_batch, axis, outer = a, b, c, axes, batch
        while axis > 0:
            axis -= 1
            word = AXES_AT + 4 * axis
            index = outer % args[word]
            outer //= args[word]
            a_batch = a_batch + index * args[word + 1]
            b_batch = b_batch + index * args[word + 2]
            c_batch = c_batch + index * args[word + 3]
"""

_TILED = '''\
"""c[batch, i, j] = sum over k of a[batch, i, k] * b[batch, k, j], by register tiles"""
from graphflow.codegen.contraction.micro_kernels import pack, pack_strips, tile
from graphflow.codegen.prelude import call_epilogue, kernel, pointer_at_{element}, share

LANES, VECTORS, HEIGHT = {lanes}, {vectors}, {height}
WIDTH = {width}  # columns of a tile and of a packed panel of b
LOW = {low}  # rows below which a tile takes no less time
SECOND = {second}  # rows of the tallest tile but one
STRIP = {strip}  # row length of a packed strip of a
AXES_AT, FAVOUR_AT = {axes_at}, {favour_at}
PACKING, READING = {packing}, {reading}


@kernel
def {name}(args, tid, nth):
{arguments}\
    k_block, n_block, i_block, pack_a, pack_b = args[18], args[19], args[20], args[21], args[22]
    panels = pointer_at_{element}(args[23]) + tid * args[24]
    strips = panels + args[25]
    onto = args[26]  # c holds what the product is added to
    # Threads share the columns or the rows of all batches: whichever leaves each of them less to
    # multiply, pack and read.  No sum is ever split, so any number of threads gives the same bits.
    column_units = (n + WIDTH - 1) // WIDTH
    columns = (batches * column_units + nth - 1) // nth * WIDTH
    rows = (batches * m + nth - 1) // nth
    times = (batches + nth - 1) // nth  # that a thread takes the operand that is not shared
    b_price, a_price = PACKING * pack_b, PACKING if pack_a else READING
    few, few_rows = m % HEIGHT % LOW, rows % HEIGHT % LOW  # one or two take the time of LOW
    more_m = few % 2 * (LOW - 1) + (few // 2 * (LOW - 2) if m < HEIGHT else 0)
    more_rows = few_rows % 2 * (LOW - 1) + (few_rows // 2 * (LOW - 2) if rows < HEIGHT else 0)
    column_cost = columns * (m + more_m + b_price) + times * m * a_price
    row_cost = (rows + more_rows) * (n + a_price) + times * n * b_price
    by_columns = column_cost <= row_cost + args[FAVOUR_AT]  # what crosses from thread to thread
    units = column_units if by_columns else m
{take}\
        i_begin, i_end, j_begin, j_end = 0, m, 0, n
        if by_columns:
            j_begin, j_end = first * WIDTH, min(n, last * WIDTH)
        else:
            i_begin, i_end = first, last
        j0 = j_begin
        while j0 < j_end:
            j1 = min(j_end, j0 + n_block)
            k0 = 0
            more = True
            while more:
                depth = min(k_block, k - k0)
                more = k0 + depth < k
                # Pack the block of b, row by row where it can be, or only its ragged last panel.
                j = j0 if pack_b else j0 + (j1 - j0) // WIDTH * WIDTH
                if pack_b and b_column == 1:
                    pack_strips(LANES, WIDTH, panels, b_batch + (k0 * b_step + j0), b_step,
                                j1 - j0, depth)
                    j = j1
                while j < j1:
                    pack(LANES, WIDTH, WIDTH, panels + (j - j0) * depth * pack_b,
                         b_batch + (k0 * b_step + j * b_column),
                         b_column, b_step, min(WIDTH, j1 - j), depth)
                    j += WIDTH
                i0 = i_begin
                while i0 < i_end:
                    i1 = min(i_end, i0 + i_block)
                    i = i0 if pack_a else i1
                    if pack_a and a_row == 1:
                        pack_strips(LANES, HEIGHT, strips, a_batch + (i0 + k0 * a_step), a_step,
                                    i1 - i0, depth)
                        i = i1
                    while i < i1:
                        pack(LANES, STRIP, STRIP, strips + (i - i0) // HEIGHT * depth * STRIP,
                             a_batch + (i * a_row + k0 * a_step), a_row, a_step,
                             min(HEIGHT, i1 - i), depth)
                        i += HEIGHT
                    # A panel of b meets all strips of a while it is in the first-level cache.
                    j = j0
                    while j < j1:
                        width = min(WIDTH, j1 - j)
                        b_tile, panel_step = b_batch + (k0 * b_step + j), b_step
                        if pack_b or width < WIDTH:
                            b_tile, panel_step = panels + (j - j0) * depth * pack_b, WIDTH
                        i = i0
                        while i < i1:
                            left = i1 - i
                            rows = {choose_rows}
                            few = left % HEIGHT % LOW
                            if few > 1 and HEIGHT < left < 2 * HEIGHT and not pack_a:
                                rows = SECOND  # then two or three are left to no tile of their own
                            a_tile = a_batch + (i * a_row + k0 * a_step)
                            tile_row, tile_step = a_row, a_step
                            if pack_a:
                                at = (i - i0) // HEIGHT * depth * STRIP + (i - i0) % HEIGHT
                                a_tile, tile_row, tile_step = strips + at, 1, STRIP
                            tile(LANES, VECTORS, HEIGHT, rows, a_tile, tile_row, tile_step,
                                 b_tile, panel_step, depth, c_batch + (i * c_row + j), c_row,
                                 width, k0 + onto)
                            i += rows
                        j += WIDTH
{finished}\
                    i0 = i1
                k0 += depth
            j0 = j1
'''

_DOT = '''\
"""c[batch, i, j] = sum over k of a[batch, i, k] * b[batch, k, j], few i, by scalar products"""
from graphflow.codegen.contraction.micro_kernels import dot, pack
from graphflow.codegen.prelude import call_epilogue, kernel, pointer_at_{element}, share

LANES, COLUMNS = {lanes}, {columns}
HOT = {hot}  # elements of b that stay in cache for all rows of a
AXES_AT = {axes_at}


@kernel
def {name}(args, tid, nth):
{arguments}\
    each = max(COLUMNS, HOT // max(1, k) // COLUMNS * COLUMNS)
    rows = pointer_at_{element}(args[23]) + tid * args[24]
    units = (n + COLUMNS - 1) // COLUMNS
{take}\
        if a_step != 1:
            pack(LANES, k, k, rows, a_batch, a_step, a_row, k, m)
            a_batch = rows
        j0, j1 = first * COLUMNS, min(n, last * COLUMNS)
        j = j0
        while j < j1:
            i = 0
            while i < m:
                dot(LANES, a_batch + i * (a_row if a_step == 1 else k), b_batch + j * b_column,
                    b_column, k, c_batch + (i * c_row + j * c_column), c_column,
                    min(each, j1 - j))
                i += 1
            j += each
{finish}'''

_ROW = '''\
"""c[batch, 0, j] = sum over k of a[batch, 0, k] * b[batch, k, j], rows of b contiguous"""
from graphflow.codegen.contraction.micro_kernels import combine
from graphflow.codegen.prelude import call_epilogue, kernel, pointer_at_{element}, share

LANES, COLUMNS = {lanes}, {columns}
HOT = {hot}  # columns of c that stay in cache
AXES_AT = {axes_at}


@kernel
def {name}(args, tid, nth):
{arguments}\
    units = (n + COLUMNS - 1) // COLUMNS
{take}\
        j0, j1 = first * COLUMNS, min(n, last * COLUMNS)
        j = j0
        while j < j1:
            combine(LANES, a_batch, a_step, b_batch + j, b_step, k, c_batch + j, min(HOT, j1 - j))
            j += HOT
{finish}'''

_FINISH = """\
        if epilogue:
            if swapped:
                call_epilogue(epilogue, block, batch, j0, j1, 0, m)
            else:
                call_epilogue(epilogue, block, batch, 0, m, j0, j1)
"""

_PLAIN = '''\
"""c[batch, i, j] = sum over k of a[batch, i, k] * b[batch, k, j], accumulated as {total}"""
from graphflow.codegen.prelude import call_epilogue, kernel, share, {total}
from graphflow.codegen.prelude import {pointers}

AXES_AT = {axes_at}


@kernel
def {name}(args, tid, nth):
{arguments}\
    units = m
{take}\
        i = first
        while i < last:
            j = 0
            while j < n:
                total = {total}(0)
                a_at, b_at = a_batch + i * a_row, b_batch + j * b_column
                for step in range(k):
                    total += {total}(a_at[step * a_step]) * {total}(b_at[step * b_step])
                c_batch[i * c_row + j * c_column] = total
                j += 1
            i += 1
        if epilogue:
            call_epilogue(epilogue, block, batch, first, last, 0, n)
'''


def _source(
    template: str, name: str, element: str, result: str = "", **facts: object
) -> KernelSource:
    words = _ARGUMENTS.format(element=element, result=result or element)
    text = template.format(
        name=name, element=element, axes_at=AXES_AT, take=_TAKE, finish=_FINISH,
        arguments=words, **facts,
    )  # fmt: skip
    return KernelSource(name, text)


@cache
def tiled_kernel(element: str, tiling: Tiling) -> KernelSource:
    """The ``mm`` kernel for an element type and the given tile."""
    name = f"mm_{element}_{tiling.height}x{tiling.vectors}x{tiling.lanes}"
    return _source(
        _TILED, name, element, lanes=tiling.lanes, vectors=tiling.vectors, height=tiling.height,
        width=tiling.width, strip=tiling.strip, choose_rows=height_text(tiling.height),
        finished=finished_rows(20, "epilogue and not more", "j0, j1"),
        packing=PACKING, reading=READING, favour_at=FAVOUR_AT,
        low=LOW, second=heights(tiling.height)[1],
    )  # fmt: skip


@cache
def dot_kernel(element: str, lanes: int) -> KernelSource:
    """The ``mm_dot`` kernel for an element type of :data:`TILED`."""
    name = f"mm_dot_{element}_{lanes}"
    return _source(_DOT, name, element, lanes=lanes, columns=DOT_COLUMNS, hot=HOT_ITEMS)


@cache
def row_kernel(element: str, lanes: int) -> KernelSource:
    """The ``mm_row`` kernel for an element type of :data:`TILED`."""
    name = f"mm_row_{element}_{lanes}"
    return _source(_ROW, name, element, lanes=lanes, columns=ROW_COLUMNS, hot=HOT_ITEMS)


@cache
def plain_kernel(element: str, result: str) -> KernelSource:
    """The loop for any element type; halves accumulate in f32, integers wrap."""
    name = f"mm_plain_{element}" + f"_{result}" * (result != element)
    pointers = ", ".join(f"pointer_at_{one}" for one in dict.fromkeys((element, result)))
    return _source(_PLAIN, name, element, result, total=accumulator(result), pointers=pointers)


def accumulator(element: str) -> str:
    """The element type in which sums of ``element`` are held."""
    totals = {"f16": "f32", "bf16": "f32", "f32": "f32", "f64": "f64"}
    return totals.get(element, "i64" if element.startswith("i") else "u64")
