"""The texts of kernels for products whose rows, columns or depth run over several axes.

They are products of matrices for whom a row is not a constant distance from the next:
windows of an image, or any two-operand ``einsum``.  ``mm_axes`` packs the second operand
rectangle by rectangle, as far as one axis goes, and reads the first where it lies: tables say
where rows and steps are.  What cannot be written where it belongs is summed up in scratch.
``mm_axes_plain`` is a loop for the element types without tiles.  Words of
the argument block are in the order of :mod:`graphflow.codegen.contraction.axes`.
"""

from __future__ import annotations

from functools import cache
from textwrap import indent

from graphflow.codegen.contraction.tiling import Tiling, height_text
from graphflow.codegen.schedule import KernelSource
from graphflow.records import dataclass

AXES_AT = 37
"""Word of the first axis; an axis is an extent and its strides in a, b and c."""

PACKING = 24
"""Rows that are multiplied in the time that a row of the second operand is packed."""

_ARGUMENTS = """\
    a = pointer_at_{element}(args[0])
    b = pointer_at_{element}(args[1])
    c = pointer_at_{result}(args[2])
    m, n, k, batches = args[3], args[4], args[5], args[6]
    batch_axes, row_axes, column_axes, depth_axes = args[7], args[8], args[9], args[10]
    rows_at = AXES_AT + 4 * batch_axes
    columns_at = rows_at + 4 * row_axes
    depth_at = columns_at + 4 * column_axes
"""

TAKE = """\
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
"""A thread's next batch, whole or a part, and where its operands begin."""

_ROW_TABLES = """\
i = i0
while i < i1:
    run = min(i1 - i, row_run - i % row_run)
    spot = place(args, rows_at, row_axes, i, 1)
    target = place(args, rows_at, row_axes, i, 3)
    for row in range(run):
        spots[i - i0 + row] = spot + row * row_a
        row_targets[i - i0 + row] = target + row * row_c
    i += run
"""


def row_tables(spaces: int) -> str:
    """Text that writes where rows ``i0`` to ``i1`` lie in a and in c, so far from the margin."""
    return indent(_ROW_TABLES, " " * spaces)


_FINISH = """\
done = i0
while {ready} and done < i1:
    part = done // batch_rows
    first_row = done - part * batch_rows
    last_row = min(batch_rows, first_row + i1 - done)
    done += last_row - first_row
    whole = batch * (m // batch_rows) + part
    call_epilogue(epilogue, block, whole, first_row, last_row, {columns})
"""


def finished_rows(spaces: int, ready: str, columns: str) -> str:
    """Text that runs the epilogue on rows ``i0`` to ``i1``, each batch's by themselves, if
    ``ready``; ``columns``: the first and the end."""
    return indent(_FINISH.format(ready=ready, columns=columns), " " * spaces)


_TILED = '''\
"""c[i, j] = sum over k of a[i, k] * b[k, j], where i, j and k run over several axes"""
from graphflow.codegen.contraction.micro_kernels import pack, pack_to, place, {tile}
from graphflow.codegen.prelude import kernel, pointer_at_{element}, pointer_at_i64, share

LANES, VECTORS, HEIGHT = {lanes}, {vectors}, {height}
WIDTH = {width}  # columns of a tile and of a packed panel of b
STRIP = {strip}  # row length of a packed strip of a
{run}\
PACKING = {packing}  # rows that are multiplied in the time a row of b is packed
AXES_AT = {axes_at}


@kernel
def {name}(args, tid, nth):
{arguments}\
    k_block, n_block, i_block = args[11], args[12], args[13]
    room = args[14] + tid * args[15] * {itemsize}
    panels = pointer_at_{element}(room)
    sums = panels + args[16]
    # Where elements lie: in a for the steps and rows at hand, in c for the rows and columns.
    steps = pointer_at_i64(room + args[17] * {itemsize})
    spots = steps + k_block
    row_targets, column_targets = spots + i_block, spots + 2 * i_block
    c_row, row_run, row_a, row_c = args[18], args[19], args[20], args[21]
    column_run, column_b, column_c = args[22], args[23], args[24]
    # Rows and columns that run on in c; columns and steps that do in b.
    row_out, column_out, column_in, depth_in = args[25], args[26], args[27], args[28]
{strips}\
    # Columns of b that lie together may be multiplied where they are.
    in_place = args[30] != 0
    # Rows of which every inner-th, several in all, are neighbours in c: groups of them.
    row_unit, inner_rows, together = args[31], args[32], args[33]
    # Rows that meet all panels before the next ones do; columns packed before the next ones.
    chunk, group = args[34], args[35]
    # Steps that run on in b, of which every taps-th are neighbours in a: bundles of them.
    taps = args[36]
    depth_word = depth_at + 4 * (depth_axes - 1)
    depth_run, depth_a, depth_b = args[depth_word], args[depth_word + 1], args[depth_word + 2]
    bundle, places = taps * depth_run, column_targets + n_block
    for tap in range(taps):
        for inner in range(depth_run):
            places[inner * taps + tap] = (tap * depth_run + inner) * WIDTH
    column_units, row_units = (n + WIDTH - 1) // WIDTH, (m + row_unit - 1) // row_unit
    column_cost = (batches * column_units + nth - 1) // nth * WIDTH * (m + PACKING)
    row_cost = (batches * row_units + nth - 1) // nth * row_unit * n + n * PACKING
    by_columns = column_cost * 17 <= row_cost * 16
    units = column_units if by_columns else row_units
{take}\
        i_begin, i_end, j_begin, j_end = 0, m, 0, n
        if by_columns:
            j_begin, j_end = first * WIDTH, min(n, last * WIDTH)
        else:
            i_begin, i_end = first * row_unit, min(m, last * row_unit)
        # Blocks of rows are as long as one another.
        parts = max(1, (i_end - i_begin + i_block - 1) // i_block)
        i_part = ((i_end - i_begin + parts - 1) // parts + row_unit - 1) // row_unit * row_unit
        j0 = j_begin
        while j0 < j_end:
            j1 = min(j_end, j0 + n_block)
            j = j0
            while j < j1:
                run = min(j1 - j, column_run - j % column_run)
                target = place(args, columns_at, column_axes, j, 3)
                for column in range(run):
                    column_targets[j - j0 + column] = target + column * column_c
                j += run
            touching = column_targets[j1 - j0 - 1] - column_targets[0] == j1 - j0 - 1
            direct = c_row >= 0 and touching
            packed = -1
            i0 = i_begin
            while i0 < i_end:
                i1 = min(i_end, i0 + i_part)
{row_tables}\
                k0 = 0
                more = True
                while more:
                    depth = min(k_block, k - k0)
                    more = k0 + depth < k
                    step = depth if packed == k0 else 0
                    while step < depth:
                        run = min(depth - step, depth_run - (k0 + step) % depth_run)
                        spot = place(args, depth_at, depth_axes, k0 + step, 1)
                        for inner in range(run):
                            steps[step + inner] = spot + inner * depth_a
                        step += run
                    # Pack the rectangles of b in these steps.
                    j2 = j1 if packed == k0 or in_place else j0
                    while j2 < j1:
                        j3, step = min(j1, j2 + group), 0
                        while step < depth:
                            run = min(depth - step, depth_in - (k0 + step) % depth_in)
                            run = bundle if taps else run
                            b_step = b_batch + place(args, depth_at, depth_axes, k0 + step, 2)
                            j = j2
                            while j < j3:
                                column = (j - j0) % WIDTH
                                across = min(min(WIDTH - column, j3 - j), column_in - j % column_in)
                                panel = panels + ((j - j0) // WIDTH * depth + step) * WIDTH + column
                                b_at = b_step + place(args, columns_at, column_axes, j, 2)
                                if taps:
                                    pack_to(LANES, WIDTH - column, panel, places, b_at,
                                            column_b, across, run)
                                else:
                                    pack(LANES, WIDTH, WIDTH - column, panel, b_at,
                                         column_b, depth_b, across, run)
                                j += across
                            step += run
                        j2 = j3
                    packed = k0
{pack_rows}\
                    i3 = i0
                    while i3 < i1:
                        i2, i3, j = i3, min(i1, i3 + chunk), j0
                        while j < j1:
                            width = min(WIDTH, j1 - j)
                            panel, panel_step = panels + (j - j0) * depth, WIDTH
                            if in_place:
                                panel, panel_step = b_batch + (k0 * depth_b + j), depth_b
                            i = i2
                            while i < i3:
                                left = {left}
                                rows = {choose_rows}
                                c_tile, out_row = sums + ((i - i0) * n_block + (j - j0)), n_block
                                if direct:
                                    there = row_targets[i - i0] + column_targets[j - j0]
                                    c_tile, out_row = c_batch + there, c_row
{multiply}\
                                i += rows
                            j += WIDTH
                    k0 += depth
                # Bring sums to where they belong, a rectangle of rows and columns at a time.
                i = i1 if direct else i0
                while i < i1:
                    run = min(i1 - i, row_out - i % row_out)
                    if inner_rows:
                        run = inner_rows * together
                    j = j0
                    while j < j1:
                        across = min(j1 - j, column_out - j % column_out)
                        goal = c_batch + (row_targets[i - i0] + column_targets[j - j0])
                        source = sums + ((i - i0) * n_block + (j - j0))
                        if inner_rows:
                            for row in range(inner_rows):
                                pack(LANES, column_c, together, goal + row * row_c,
                                     source + row * n_block, inner_rows * n_block, 1,
                                     together, across)
                        elif row_c == 1:
                            pack(LANES, column_c, run, goal, source, n_block, 1, run, across)
                        elif column_c == 1:
                            pack(LANES, row_c, across, goal, source, 1, n_block, across, run)
                        else:
                            for column in range(across):
                                pack(LANES, row_c, 1, goal + column * column_c, source + column,
                                     1, n_block, 1, run)
                        j += across
                    i += run
                i0 = i1
            j0 = j1
'''

_STRIPS = """\
    # Neighbouring rows of a whose steps are far apart are packed, too.
    strips = panels + args[29]
"""

_PACK_ROWS = """\
                    i = i0
                    while i < i1:
                        strip = strips + (i - i0) // HEIGHT * depth * STRIP
                        row, height = 0, min(HEIGHT, i1 - i)
                        while row < height:
                            run = min(height - row, row_run - (i + row) % row_run)
                            step = 0
                            while step < depth:
                                across = min(depth - step, depth_run - (k0 + step) % depth_run)
                                pack(LANES, STRIP, STRIP - row, strip + (step * STRIP + row),
                                     a_batch + (spots[i - i0 + row] + steps[step]),
                                     row_a, depth_a, run, across)
                                step += across
                            row += run
                        i += HEIGHT
"""

_MULTIPLY_PACKED = """\
                                at = (i - i0) // HEIGHT * depth * STRIP + (i - i0) % HEIGHT
                                tile(LANES, VECTORS, HEIGHT, rows, strips + at, 1, STRIP,
                                     panel, panel_step, depth, c_tile, out_row, width, k0)
"""

_MULTIPLY = """\
                                tile_at(LANES, VECTORS, HEIGHT, rows, a_batch,
                                        spots + (i - i0), steps, panel, panel_step, depth,
                                        c_tile, out_row, width, k0)
"""

_MULTIPLY_ALONG = """\
                                lanes_at(LANES, VECTORS, HEIGHT, rows, a_batch + j,
                                         spots + (i - i0), steps, panel, panel_step, depth,
                                         c_tile, out_row, width, k0)
"""

_RUN = """\
TAPS, MOST, FEWEST = {taps}, {most}, {fewest}  # taps and rows taken together
DOWN, ALONG = {down}, {along}  # pitches between rows, and between these taps
GROUP = {group}  # columns that read the same elements of a, a step for each
"""

_MULTIPLY_RUN = """\
                                lanes_run(LANES, GROUP, TAPS, DOWN, ALONG, MOST, FEWEST, rows,
                                          a_batch + (j + spots[i - i0]), row_a // DOWN, steps,
                                          panel, panel_step, depth // (GROUP * TAPS),
                                          c_tile, out_row, width, k0)
"""

_PLAIN = '''\
"""c[i, j] = sum over k of a[i, k] * b[k, j] over several axes each, accumulated as {total}"""
from graphflow.codegen.contraction.micro_kernels import place
from graphflow.codegen.prelude import kernel, share, {total}
from graphflow.codegen.prelude import {pointers}

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


def _source(
    template: str, name: str, element: str, result: str = "", **facts: object
) -> KernelSource:
    words = _ARGUMENTS.format(element=element, result=result or element)
    text = template.format(
        name=name, element=element, axes_at=AXES_AT, take=TAKE, arguments=words, **facts,
    )  # fmt: skip
    return KernelSource(name, text)


@dataclass(frozen=True, slots=True)
class Run:
    """What is taken together: ``taps``, each a step for every column of a ``group``, and rows, at
    most and at last.  Rows are ``down`` pitches apart, taps ``along``."""

    group: int
    taps: int
    most: int
    fewest: int
    down: int
    along: int

    @property
    def steps(self) -> int:
        """Steps of depth that are taken together."""
        return self.group * self.taps


@cache
def tiled_axes_kernel(
    element: str,
    itemsize: int,
    tiling: Tiling,
    packed: bool,
    along: bool = False,
    run: Run | None = None,
) -> KernelSource:
    """The ``mm_axes`` kernel for an element type and the given tile.

    Rows of the first operand are ``packed`` where they are neighbours at steps far apart; else
    they are read where they lie.  Columns ``along`` which both operands have elements are
    neighbours in the first, where a ``run`` of rows and steps may be as far apart.  A kernel has
    one of these: tiles are most of its code.
    """
    tile, multiply = ("tile", _MULTIPLY_PACKED) if packed else ("tile_at", _MULTIPLY)
    rows, left, facts, kind = height_text(tiling.height), "i3 - i", "", "_packed" * packed
    if along:
        tile, multiply, kind = "lanes_at", _MULTIPLY_ALONG, "_along"
    if run is not None:
        tile, multiply = "lanes_run", _MULTIPLY_RUN
        kind = f"_along_{run.group}_{run.taps}x{run.along}_{run.most}_{run.fewest}x{run.down}"
        rows, left = "MOST if left >= MOST else FEWEST", "row_run - i % row_run"
        facts = _RUN.format(
            group=run.group, taps=run.taps, most=run.most, fewest=run.fewest,
            down=run.down, along=run.along,
        )  # fmt: skip
    name = f"mm_axes{kind}_{element}_{tiling.height}x{tiling.vectors}x{tiling.lanes}"
    return _source(
        _TILED, name, element, lanes=tiling.lanes, vectors=tiling.vectors, height=tiling.height,
        width=tiling.width, strip=tiling.strip, packing=PACKING, itemsize=itemsize,
        choose_rows=rows, left=left, run=facts, row_tables=row_tables(16),
        tile=tile, multiply=multiply, pack_rows=_PACK_ROWS if packed else "",
        strips=_STRIPS if packed else "",
    )  # fmt: skip


@cache
def plain_axes_kernel(element: str, result: str, total: str) -> KernelSource:
    """The loop for any element type, accumulating as ``total``."""
    name = f"mm_axes_plain_{element}" + f"_{result}" * (result != element)
    pointers = ", ".join(f"pointer_at_{one}" for one in dict.fromkeys((element, result)))
    return _source(_PLAIN, name, element, result, total=total, pointers=pointers)
