"""The texts of the kernels that convolve by Winograd's transforms, a block of tiles at a time.

Words of the argument blocks are in the order of
:mod:`graphflow.codegen.contraction.winograd`; extents and strides are arguments, in elements.
Channels lie together in scratch: ``ins[q, tile, c]`` are transformed windows, and for each of
the ``SPAN**2`` products ``q`` a matrix product makes ``outs[q, tile, k]`` of them.
"""

from __future__ import annotations

from functools import cache

from graphflow.codegen.contraction.tiling import Tiling, heights
from graphflow.codegen.schedule import KernelSource
from graphflow.ir.formulas.winograd import FORMS
from graphflow.ir.ops.winograd import GAP

PART = 64
"""Channels (or filters) whose taps are transformed at a time."""
RUN = 8
"""Channels whose taps are written together: whole lines of them."""
DEPTH = 256
"""Steps that are multiplied at a time: a panel of so many stays in the first-level cache."""

_PACKED = """\
begin, tap, step = 0, PANEL, 9 * PANEL  # where taps are, the next one, the next channel
if together and turned:  # they are copied from the last to the first
    source, begin, tap = source + 8 * w_column, 8 * PANEL, -PANEL
if together and w_channel == 9:
    pack(LANES, PANEL, PANEL, taps, source, w_filter, 1, width, 9 * depth)
elif together:
    for c in range(depth):
        pack(LANES, PANEL, PANEL, taps + c * step, source + c * w_channel,
             w_filter, 1, width, 9)
else:
    for k in range(9):
        pack(LANES, step, PANEL, taps + k * PANEL,
             source + (k // 3 * w_row + k % 3 * w_column),
             w_filter, w_channel, width, depth)
transform_all(LANES, {taps}, SIZE, depth, PANEL, taps + begin, 3 * tap, tap, step,
              {goal}, (SIZE + 2) * {plane}, {plane}, PANEL)
"""


_TAPS = '''\
"""room[q, panel, c, lane] = taps of filter panel * PANEL + lane and channel c, transformed"""
from graphflow.codegen.contraction.micro_kernels import pack, transform_all
from graphflow.codegen.prelude import kernel, pointer_at_{element}, share

LANES, PANEL, SIZE, PART = {lanes}, {panel}, {size}, {part}


@kernel
def {name}(args, tid, nth):
    w = pointer_at_{element}(args[0])
    room = pointer_at_{element}(args[1])
    taps = pointer_at_{element}(args[2]) + tid * (9 * PART * PANEL)
    filters, channels, plane = args[3], args[4], args[5]
    w_filter, w_channel, w_row, w_column = args[6], args[7], args[8], args[9]
    turned = w_column == -1
    together = (turned or w_column == 1) and w_row == 3 * w_column
    panels, parts = (filters + PANEL - 1) // PANEL, (channels + PART - 1) // PART
    unit, last = share(panels * parts, tid, nth)
    while unit < last:
        panel, c0 = unit // parts, unit % parts * PART
        if w_filter < w_channel:  # units that follow each other read what lies together
            panel, c0 = unit % panels, unit // panels * PART
        depth, width = min(PART, channels - c0), min(PANEL, filters - panel * PANEL)
        source = w + (panel * PANEL * w_filter + c0 * w_channel)
{packed}\
        unit += 1
'''

_GATHER = """\
            whole = i >= 0 and j >= 0 and i + {span} <= {high} and j + {span} <= {wide}
            source, row, column = {at}, {row}, {column}
            if not whole or {channel} != 1:
                source, row, column = patch, {span} * {channels}, {channels}
                if not whole:
                    for spot in range({span} * {span} * {channels}):
                        patch[spot] = 0
                first, last = max(j, 0), min(j + {span}, {wide})
                if first < last:
                    for line in range(max(i, 0), min(i + {span}, {high})):
                        pack(LANES, {channels}, {channels},
                             patch + ((line - i) * {span} + first - j) * {channels},
                             {at} + ((line - i) * {row} + (first - j) * {column}),
                             {channel}, {column}, {channels}, last - first)
"""


def _gather(image: str, channels: str, span: str, high: str, wide: str) -> str:
    """Text that finds the window at ``i``, ``j``: where it lies, or in ``patch``, padded."""
    return _GATHER.format(
        at=f"{image} + (image * {image}_image + i * {image}_row + j * {image}_column)",
        row=f"{image}_row", column=f"{image}_column", channel=f"{image}_channel",
        channels=channels, span=span, high=high, wide=wide,
    )  # fmt: skip


_WINDOWS = """\
        for t in range(t0, t1):
            image, at = t // (down * across), t % (down * across)
            i, j = at // across * SIZE - above, at % across * SIZE - before
{gather}\
            transform(LANES, {input}, SIZE, channels, source, row, column,
                      ins + (t - t0) * in_row, SPAN * in_plane, in_plane)
"""

_RESULTS = """\
        for t in range(t0, t1):
            image, at = t // (down * across), t % (down * across)
            i, j = at // across * SIZE, at % across * SIZE
            lines, run = min(SIZE, y_high - i), min(SIZE, y_wide - j)
            goal = y + (image * y_image + i * y_row + j * y_column + f0 * y_channel)
            target, row, column = goal, y_row, y_column
            if y_channel != 1 or lines < SIZE or run < SIZE:
                target, row, column = patch, SIZE * count, count
            transform(LANES, {result}, SIZE, count, outs + (t - t0) * out_row,
                      SPAN * out_plane, out_plane, target, row, column)
            for line in range(lines):
                if y_channel != 1:
                    pack(LANES, y_channel, run, goal + line * y_row, patch + line * row,
                         count, 1, run, count)
                elif lines < SIZE or run < SIZE:
                    pack(LANES, y_column, count, goal + line * y_row, patch + line * row,
                         1, count, count, run)
                if epilogue:
                    call_epilogue(epilogue, rest, image * y_high + i + line, j, j + run, f0, f1)
"""

_IMAGE = '''\
"""y[n, i, j, k] = sum over c and 3 x 3 taps of x[n, i + …, j + …, c] * taps[…, c, k]"""
from graphflow.codegen.contraction.micro_kernels import pack, tile, transform
from graphflow.codegen.prelude import call_epilogue, kernel, pointer_at_{element}, share

LANES, VECTORS, HEIGHT, WIDTH = {lanes}, {vectors}, {height}, {width}
PANEL, DEPTH = {panel}, {depth}
SIZE, SPAN = {size}, {size} + 2


@kernel
def {name}(args, tid, nth):
    x = pointer_at_{element}(args[0])
    taps = pointer_at_{element}(args[1])
    y = pointer_at_{element}(args[2])
    ins = pointer_at_{element}(args[3]) + tid * args[4]
    images, channels, filters, high, wide = args[5], args[6], args[7], args[8], args[9]
    y_high, y_wide, above, before = args[10], args[11], args[12], args[13]
    x_image, x_channel, x_row, x_column = args[14], args[15], args[16], args[17]
    y_image, y_channel, y_row, y_column = args[18], args[19], args[20], args[21]
    block, in_row, in_plane, out_row, out_plane = args[22], args[23], args[24], args[25], args[26]
    tap_plane = args[27]
    parts, part = args[28], args[29]  # filters are cut into parts where tiles are few
    epilogue, rest = args[30], args[31]
    outs = ins + SPAN * SPAN * in_plane
    patch = outs + SPAN * SPAN * out_plane
    down, across = (y_high + SIZE - 1) // SIZE, (y_wide + SIZE - 1) // SIZE
    tiles = images * down * across
    blocks = (tiles + block - 1) // block
    unit, last_unit = share(blocks * parts, tid, nth)
    while unit < last_unit:
        t0, f0 = unit % blocks * block, unit // blocks * part
        t1, f1 = min(tiles, t0 + block), min(filters, f0 + part)
        count = f1 - f0
        unit += 1
{windows}\
        for q in range(SPAN * SPAN):
            k0 = 0
            while k0 < channels:
                depth = min(DEPTH, channels - k0)
                column = f0
                while column < f1:
                    panel, lane = column // PANEL, column % PANEL
                    i = 0
                    while i < t1 - t0:
                        left = t1 - t0 - i
                        rows = {choose_rows}
                        tile(LANES, VECTORS, HEIGHT, rows,
                             ins + (q * in_plane + i * in_row + k0), in_row, 1,
                             taps + (q * tap_plane + (panel * channels + k0) * PANEL + lane),
                             PANEL, depth, outs + (q * out_plane + i * out_row + column - f0),
                             out_row, min(WIDTH, f1 - column), k0)
                        i += rows
                    column += WIDTH
                k0 += depth
{results}\
'''

_WHOLE = '''\
"""y[n, i, j, k] = sum over c and 3 x 3 taps of x[n, i + …, j + …, c] * w[k, c, …]"""
from graphflow.codegen.contraction.micro_kernels import pack, tile, transform, transform_all
from graphflow.codegen.prelude import call_epilogue, kernel, pointer_at_{element}, share

LANES, VECTORS, HEIGHT, WIDTH = {lanes}, {vectors}, {height}, {width}
PANEL, PART = {panel}, {part}
SIZE, SPAN, PLANE = {size}, {size} + 2, PART * PANEL + {gap}


@kernel
def {name}(args, tid, nth):
    x_first = pointer_at_{element}(args[0])
    w = pointer_at_{element}(args[1])
    y_first = pointer_at_{element}(args[2])
    ins = pointer_at_{element}(args[3]) + tid * args[4]
    # A way is some of the channels, over which it sums, and some of the filters.
    channel_ways, channel_run, filter_ways, filter_run = args[5], args[6], args[7], args[8]
    images, all_channels, filters, high, wide = args[9], args[10], args[11], args[12], args[13]
    y_high, y_wide, above, before = args[14], args[15], args[16], args[17]
    x_image, x_channel, x_row, x_column = args[18], args[19], args[20], args[21]
    y_image, y_channel, y_row, y_column = args[22], args[23], args[24], args[25]
    w_filter, w_channel, w_column = args[26], args[27], args[28]
    in_row, in_plane, out_row, out_plane = args[29], args[30], args[31], args[32]
    epilogue, rest, y_way = args[33], args[34], args[35]
    outs = ins + SPAN * SPAN * in_plane
    made = outs + SPAN * SPAN * out_plane
    taps = made + SPAN * SPAN * PLANE
    patch = taps + 9 * PART * PANEL
    w_row, turned, together = 3 * w_column, w_column == -1, abs(w_column) == 1
    down, across = (y_high + SIZE - 1) // SIZE, (y_wide + SIZE - 1) // SIZE
    t0, t1 = 0, images * down * across
    way, last_way = share(channel_ways * filter_ways, tid, nth)
    while way < last_way:
        c_first, f0 = way // filter_ways * channel_run, way % filter_ways * filter_run
        channels, f1 = min(channel_run, all_channels - c_first), min(filters, f0 + filter_run)
        x, y = x_first + c_first * x_channel, y_first + way // filter_ways * y_way
        count = f1 - f0
        way += 1
{windows}\
        f = f0
        while f < f1:
            c0 = 0
            while c0 < channels:
                depth, width = min(PART, channels - c0), min(PANEL, f1 - f)
                source = w + (f * w_filter + (c_first + c0) * w_channel)
{packed}\
                for q in range(SPAN * SPAN):
                    lane = 0
                    while lane < width:
                        i = 0
                        while i < t1:
                            left = t1 - i
                            rows = {choose_rows}
                            tile(LANES, VECTORS, HEIGHT, rows,
                                 ins + (q * in_plane + i * in_row + c0), in_row, 1,
                                 made + (q * PLANE + lane), PANEL, depth,
                                 outs + (q * out_plane + i * out_row + f - f0 + lane), out_row,
                                 min(WIDTH, width - lane), c0)
                            i += rows
                        lane += WIDTH
                c0 += PART
            f += PANEL
{results}\
'''

_GRADIENT = '''\
"""sums[way, q, c, k] = sum over tiles of windows of x times tiles of y's cotangent, transformed"""
from graphflow.codegen.contraction.micro_kernels import pack, tile, transform, transform_all
from graphflow.codegen.prelude import kernel, pointer_at_{element}, share

LANES, VECTORS, HEIGHT, WIDTH = {lanes}, {vectors}, {height}, {width}
PANEL, ROWS = {panel}, {part}
SIZE, SPAN = {size}, {size} + 2


@kernel
def {name}(args, tid, nth):
    x = pointer_at_{element}(args[0])
    y_first = pointer_at_{element}(args[1])
    sums = pointer_at_{element}(args[2])
    ins = pointer_at_{element}(args[3]) + tid * args[4]
    # A way is some of the tiles and some of the filters; sums of a way have rows of so many.
    tile_ways, filter_ways, run, way_items, plane = args[5], args[6], args[7], args[8], args[9]
    tiles, most_tiles = args[10], args[11]
    channels, filters, high, wide = args[12], args[13], args[14], args[15]
    y_high, y_wide, above, before = args[16], args[17], args[18], args[19]
    x_image, x_channel, x_row, x_column = args[20], args[21], args[22], args[23]
    y_image, y_channel, y_row, y_column = args[24], args[25], args[26], args[27]
    in_row, in_plane, out_panel, out_plane = args[28], args[29], args[30], args[31]
    outs = ins + SPAN * SPAN * in_plane
    patch = outs + SPAN * SPAN * out_plane
    down, across = (y_high + SIZE - 1) // SIZE, (y_wide + SIZE - 1) // SIZE
    way, last_way = share(tile_ways * filter_ways, tid, nth)
    while way < last_way:
        total, y = sums + way * way_items, y_first + way // tile_ways * run * y_channel
        width = min(run, filters - way // tile_ways * run)
        begin = way % tile_ways * tiles // tile_ways
        end = (way % tile_ways + 1) * tiles // tile_ways
        way += 1
        if begin == end:
            for spot in range(way_items):
                total[spot] = 0
        t0 = begin
        while t0 < end and width > 0:
            depth = min(most_tiles, end - t0)
            for t in range(depth):
                image, at = (t0 + t) // (down * across), (t0 + t) % (down * across)
                i, j = at // across * SIZE - above, at % across * SIZE - before
{gather_x}\
                transform(LANES, {input}, SIZE, channels, source, row, column,
                          ins + t * in_row, SPAN * in_plane, in_plane)
                i, j = at // across * SIZE, at % across * SIZE
{gather_y}\
                panels = width // PANEL
                transform_all(LANES, {cotangent}, SIZE, panels, PANEL, source, row, column, PANEL,
                              outs + t * PANEL, SPAN * out_plane, out_plane, out_panel)
                k = panels * PANEL
                if k < width:
                    transform_all(LANES, {cotangent}, SIZE, 1, width - k, source + k, row, column,
                                  0, outs + (panels * out_panel + t * PANEL),
                                  SPAN * out_plane, out_plane, 0)
            for unit in range(SPAN * SPAN * ((channels + ROWS - 1) // ROWS)):
                q, c0 = unit % (SPAN * SPAN), unit // (SPAN * SPAN) * ROWS
                c1 = min(channels, c0 + ROWS)
                column = 0
                while column < width:
                    panel, lane = column // PANEL, column % PANEL
                    c = c0
                    while c < c1:
                        left = c1 - c
                        rows = {choose_rows}
                        tile(LANES, VECTORS, HEIGHT, rows, ins + (q * in_plane + c), 1, in_row,
                             outs + (q * out_plane + panel * out_panel + lane), PANEL, depth,
                             total + (q * plane + c * run + column), run,
                             min(WIDTH, width - column), t0 - begin)
                        c += rows
                    column += WIDTH
            t0 += depth
'''

_BACK = '''\
"""w[k, c, i, j] = taps back from sums[way, q, c, k], added over tiles' ways"""
from graphflow.codegen.contraction.micro_kernels import pack, transform_all
from graphflow.codegen.prelude import kernel, pointer_at_{element}, share

LANES, SIZE, PART, RUN = {lanes}, {size}, {part}, {run}


@kernel
def {name}(args, tid, nth):
    sums = pointer_at_{element}(args[0])
    w = pointer_at_{element}(args[1])
    taps = pointer_at_{element}(args[2]) + tid * (9 * PART * RUN)
    tile_ways, filter_ways, run, way_items, plane = args[3], args[4], args[5], args[6], args[7]
    filters, channels = args[8], args[9]
    w_filter, w_channel, w_row, w_column = args[10], args[11], args[12], args[13]
    parts, blocks = (run + PART - 1) // PART, (channels + RUN - 1) // RUN
    unit, last = share(filter_ways * parts * blocks, tid, nth)
    while unit < last:
        way, part, c = unit // blocks // parts, unit // blocks % parts, unit % blocks * RUN
        k, high = way * run + part * PART, min(RUN, channels - c)
        count = min(PART, min(filters, (way + 1) * run) - k)
        unit += 1
        if count <= 0:
            continue
        source = sums + (way * tile_ways * way_items + c * run + part * PART)
        for more in range(1, tile_ways):
            for line in range((SIZE + 2) * (SIZE + 2) * high):
                at = line // high * plane + line % high * run
                to, other = source + at, source + (more * way_items + at)
                for spot in range(count):
                    to[spot] += other[spot]
        transform_all(LANES, {taps_back}, SIZE, high, count, source,
                      (SIZE + 2) * plane, plane, run, taps, 3 * PART, PART, 9 * PART)
        goal = w + (k * w_filter + c * w_channel)
        if w_column == 1 and w_row == 3 and w_channel == 9:
            pack(LANES, w_filter, 9 * high, goal, taps, PART, 1, 9 * high, count)
        else:
            for tap in range(9 * high):
                at = tap // 9 * w_channel + tap % 9 // 3 * w_row + tap % 3 * w_column
                pack(LANES, w_filter, 1, goal + at, taps + tap * PART, 1, 1, 1, count)
'''

_TEMPLATES = {
    "taps": _TAPS, "image": _IMAGE, "whole": _WHOLE, "gradient": _GRADIENT,
    "back": _BACK,
}  # fmt: skip
_GOALS = {
    "taps": ("room + (panel * channels + c0) * PANEL", "plane", 2),
    "whole": ("made", "PLANE", 4),
}
"""Where transformed taps of a panel begin, how far products are apart, and how deep the text is."""
_INDENT = " " * 4


@cache
def winograd_kernel(role: str, element: str, tiling: Tiling, size: int, panel: int) -> KernelSource:
    """The kernel of a step, one of ``_TEMPLATES``.

    ``panel`` is the number of filters whose taps, or cotangents, lie together.
    """
    *taller, lowest = heights(tiling.height)
    vectors = min(tiling.vectors, panel // tiling.lanes)
    tile = f"{tiling.height}x{vectors}x{tiling.lanes}"
    name = f"winograd_{role}_{element}_{size}_{panel}_{tile}"
    forms = {form: number for number, form in enumerate(FORMS)}
    gather_x, gather_y = (
        _gather("x", "channels", "SPAN", "high", "wide"),
        _gather("y", "width", "SIZE", "y_high", "y_wide"),
    )
    goal, plane, depth = _GOALS.get(role, ("", "", 0))
    text = _TEMPLATES[role].format(
        name=name, element=element, size=size, lanes=tiling.lanes, vectors=vectors,
        height=tiling.height, width=tiling.lanes * vectors, panel=panel, part=PART, depth=DEPTH,
        run=RUN, gap=GAP,
        choose_rows="".join(f"{h} if left >= {h} else " for h in taller) + str(lowest),
        gather_x=_indented(gather_x), gather_y=_indented(gather_y),
        windows=_WINDOWS.format(gather=gather_x, **forms), results=_RESULTS.format(**forms),
        packed=_indented(_PACKED.format(goal=goal, plane=plane, **forms), depth),
        **forms,
    )  # fmt: skip
    return KernelSource(name, text)


def _indented(text: str, depth: int = 1) -> str:
    return "".join(depth * _INDENT + line for line in text.splitlines(keepends=True))
