"""Convolution by Winograd's transforms: the calls, and into how many tiles they are cut."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import gcd

from graphflow.codegen.contraction.call import PARALLEL_FLOPS, Scratch, address, rounded_up
from graphflow.codegen.contraction.choice import Choice, advised, choose
from graphflow.codegen.contraction.halves import HALVES, added_halves
from graphflow.codegen.contraction.tiling import cache_sizes, tiling
from graphflow.codegen.contraction.winograd_kernels import PART, RUN, winograd_kernel
from graphflow.codegen.epilogue import Epilogue, epilogue_words, with_epilogue
from graphflow.codegen.layout import Layout
from graphflow.codegen.schedule import Argument, Call, Value
from graphflow.codegen.sizes import example_of
from graphflow.codegen.target import LINE_BYTES, chosen_target
from graphflow.ir.formulas.winograd import TAPS
from graphflow.ir.node import Node
from graphflow.ir.op import Tiles
from graphflow.ir.ops.winograd import GAP, PANEL, panel_of
from graphflow.ir.types import TensorType
from graphflow.records import replace

MOST_TILES = 96
"""Tiles of a block: more gain nothing."""
FEWEST_TILES = {False: 12, True: 48}
"""Tiles of a block, at least; more where the taps of one product are not in cache (True)."""
SAME_PLACES = 16
"""Rows a multiple of so many lines apart have at most four places in a first-level cache."""
MOST_WAYS, LEAST_TILES = 4, 128
"""Parts of tiles whose sums are added to a gradient, at most; tiles of such a part, at least."""
MANY_TILES = 4
"""Tiles for each filter from which more sums cost less than transforming all tiles again."""
TILES = 64
"""Tiles that a thread transforms and multiplies at a time for a gradient.  Few of them stay in
the second-level cache, but sums are read and written once for so many."""


def winograd_calls(
    node: Node,
    operands: Sequence[Layout],
    result: Layout,
    epilogue: Epilogue | None,
    context: Scratch,
) -> list[Call]:
    """The calls that compute ``node``, whose record says what it does to tiles."""
    return _LOWER[node.op.tiles](node, operands, result, epilogue, context)


def takes_epilogue(node: Node) -> bool:
    """Whether the kernel of ``node`` runs what follows on each tile: in rows of pixels."""
    tiles = node.op.tiles
    return tiles is not None and tiles.convolves and bool(node.attrs["last"])


def _call(
    role: str, node: Node, places: Sequence[Layout], written: Sequence[Layout],
    words: Sequence[Argument], flops: int, panel: int = PANEL,
) -> Call:  # fmt: skip
    """The call of a kernel on ``places``; those of them in ``written`` are written."""
    dtype = places[0].type.dtype
    tile = tiling(chosen_target(), dtype.itemsize)
    kernel = winograd_kernel(role, dtype.short, tile, node.attrs["size"], panel)
    return Call(
        kernel=kernel,
        arguments=(*map(address, places), *words),
        reads=frozenset(p.buffer for p in places if p not in written),
        writes=frozenset(p.buffer for p in written),
        parallel=flops >= PARALLEL_FLOPS,
        flops=flops,
    )


def _values(*words: int) -> tuple[Value, ...]:
    return tuple(map(Value, words))


def _products(node: Node) -> int:
    return int(node.attrs["size"] + TAPS - 1) ** 2


def _image_axes(node: Node, *places: Layout) -> tuple[tuple[tuple[int, ...], ...], list[int]]:
    """Extents (images, channels, rows, columns) of ``places``, and all their strides."""
    order = (0, 3, 1, 2) if node.attrs["last"] else (0, 1, 2, 3)
    shapes = tuple(tuple(p.shape[axis] for axis in order) for p in places)
    return shapes, [p.strides[axis] for p in places for axis in order]


def _taps(
    node: Node, operands: Sequence[Layout], room: Layout, _: object, context: Scratch
) -> list[Call]:
    (w,) = operands
    filters, channels = w.shape[:2]
    panel = panel_of(filters)
    scratch = context.temporary(TensorType(w.type.dtype, (context.threads, 9 * PART * panel)))
    words = _values(filters, channels, room.shape[1], *w.strides)
    work = 8 * _products(node) * filters * channels
    return [_call("taps", node, (w, room, scratch), (room, scratch), words, work, panel)]


def _image(
    node: Node, operands: Sequence[Layout], y: Layout, epilogue: Epilogue | None, context: Scratch
) -> list[Call]:
    x, taps = operands
    dtype = x.type.dtype
    (xs, ys), strides = _image_axes(node, x, y)
    (images, channels, *extents), (filters, *places) = xs, ys[1:]
    size, products = node.attrs["size"], _products(node)
    tiles = images * -(-places[0] // size) * -(-places[1] // size)
    usual, item = example_of(tiles), dtype.itemsize
    product_bytes = channels * filters * item
    parts = _parts(usual, product_bytes, filters, context.threads)
    panel = panel_of(filters)
    part = rounded_up(-(-filters // parts), panel)
    block = _block(
        example_of(tiles),
        products * (channels + part) * item,
        product_bytes,
        context.threads // parts,
    )
    product = ""
    if advised():
        follows = epilogue.kernel.name if epilogue else ""
        product = f"winograd {dtype} {size} {context.threads} {xs} {ys} {strides} {follows}"
        others = [Choice(0, part) for part in (block // 2, 2 * block, 3 * block) if part]
        block = choose(product, Choice(0, block), others).rows
    line = LINE_BYTES // item
    in_row, out_row = _row(channels, line), _row(part, line)
    ins, outs = block * in_row + line, block * out_row + line
    items = rounded_up(products * (ins + outs + max(channels, filters)), line) + line
    scratch = context.temporary(TensorType(dtype, (context.threads, items)))
    words = _values(
        items, images, channels, filters, *extents, *places, *node.attrs["low"], *strides,
        block, in_row, ins, out_row, outs, taps.shape[1], -(-filters // part), part,
    )  # fmt: skip
    flops = 2 * tiles * products * channels * filters
    call = _call(
        "image",
        node,
        (x, taps, y, scratch),
        (y, scratch),
        (*words, *epilogue_words(epilogue)),
        flops,
        panel,
    )
    return [with_epilogue(replace(call, product=product), epilogue)]


def _whole(
    node: Node, operands: Sequence[Layout], y: Layout, epilogue: Epilogue | None, context: Scratch
) -> list[Call]:
    x, w = operands
    dtype = x.type.dtype
    (xs, ys), _ = _image_axes(node, x, y)
    (images, channels, *extents), (filters, *places) = xs, ys[1:]
    size, products, threads = node.attrs["size"], _products(node), context.threads
    tiles = images * -(-places[0] // size) * -(-places[1] // size)
    # Threads share the outer axis of the taps: that is how they share what writes to them.
    halves = HALVES if w.strides[0] < w.strides[1] and channels >= HALVES * PART else 1
    room, target, way = y, y, 0
    if halves > 1:
        room = context.temporary(TensorType(dtype, (halves, *y.shape)))
        way, *steps = room.strides
        target = Layout(room.buffer, y.type, room.offset, tuple(steps))
    channel_run = rounded_up(-(-channels // halves), PART) if halves > 1 else channels
    panel = panel_of(filters)
    filter_ways = max(1, min(threads // gcd(threads, halves), filters // panel))
    filter_run = rounded_up(-(-filters // filter_ways), panel) if filter_ways > 1 else filters
    line = LINE_BYTES // dtype.itemsize
    in_row, out_row = _row(channel_run, line), _row(filter_run, line)
    in_plane, out_plane = tiles * in_row + line, tiles * out_row + line
    items = products * (in_plane + out_plane + max(channel_run, filter_run) + PART * panel + GAP)
    items = rounded_up(items + 9 * PART * panel, line) + line
    scratch = context.temporary(TensorType(dtype, (threads, items)))
    words = _values(
        items, halves, channel_run, filter_ways, filter_run, images, channels, filters,
        *extents, *places, *node.attrs["low"], *_image_axes(node, x, target)[1],
        *w.strides, in_row, in_plane, out_row, out_plane,
    )  # fmt: skip
    follows = epilogue_words(epilogue if halves == 1 else None)
    work = 2 * tiles * products * channels * filters
    call = _call(
        "whole", node, (x, w, room, scratch), (room, scratch), (*words, *follows, Value(way)),
        work, panel,
    )  # fmt: skip
    if halves == 1:
        across = {y.buffer} if filter_ways > 1 else ()
        return [with_epilogue(replace(call, across=frozenset(across)), epilogue)]
    return [call, added_halves(room, y, epilogue, call.parallel)]


def _row(items: int, line: int) -> int:
    """Elements from a row of ``items`` to the next, where a tile's rows do not all compete for
    the same few places of a cache."""
    lines = -(-items // line)
    return (lines + (lines % SAME_PLACES == 0)) * line


def _parts(tiles: int, product_bytes: int, filters: int, threads: int) -> int:
    """Into how many parts filters are cut: one a thread where there are too few tiles for
    all, and each would read the taps of all filters."""
    first, _ = cache_sizes()
    few = tiles < threads * FEWEST_TILES[product_bytes > first]
    return threads if few and filters >= threads * PANEL else 1


def _block(tiles: int, tile_bytes: int, product_bytes: int, threads: int) -> int:
    """Tiles that a thread brings through all steps while they are in the second-level cache.

    Few enough for that, but enough that taps, which every block reads, are read seldom;
    and so that threads get equal numbers of blocks.
    """
    first, second = cache_sizes()
    fewest = FEWEST_TILES[product_bytes > first]
    block = min(MOST_TILES, max(fewest, second * 7 // 8 // tile_bytes))
    count = rounded_up(-(-tiles // block), threads)
    return max(1, -(-tiles // count))


def _gradient(
    node: Node, operands: Sequence[Layout], w: Layout, _: object, context: Scratch
) -> list[Call]:
    x, ct = operands
    dtype = x.type.dtype
    (xs, ys), strides = _image_axes(node, x, ct)
    (images, channels, *extents), (filters, *places) = xs, ys[1:]
    size, products = node.attrs["size"], _products(node)
    tiles = images * -(-places[0] // size) * -(-places[1] // size)
    tile_ways, filter_ways = _ways(example_of(tiles), filters, context.threads)
    usual = max(1, example_of(tiles) // tile_ways)
    part = -(-usual // -(-usual // TILES))
    line = LINE_BYTES // dtype.itemsize
    run = rounded_up(-(-filters // filter_ways), PANEL) if filter_ways > 1 else filters
    in_row = (-(-channels // line) | 1) * line  # odd numbers of lines: all sets of a cache
    out_panel = part * PANEL
    in_plane, out_plane = part * in_row + line, -(-run // PANEL) * out_panel + line
    plane = channels * run + line
    items = rounded_up(products * (in_plane + out_plane + max(channels, run)), line) + line
    ways = tile_ways * filter_ways
    sums = context.temporary(TensorType(dtype, (ways, products * plane)))
    scratch = context.temporary(TensorType(dtype, (context.threads, items)))
    shares = (tile_ways, filter_ways, run, products * plane, plane)
    words = _values(
        items, *shares, tiles, part, channels, filters, *extents, *places,
        *node.attrs["low"], *strides, in_row, in_plane, out_panel, out_plane,
    )  # fmt: skip
    work = 2 * products * tiles * channels * filters
    first = _call("gradient", node, (x, ct, sums, scratch), (sums, scratch), words, work)
    scratch = context.temporary(TensorType(dtype, (context.threads, 9 * PART * RUN)))
    words = _values(*shares, filters, channels, *w.strides)
    work = 8 * products * channels * filters
    last = _call("back", node, (sums, w, scratch), (w, scratch), words, work)
    return [first, replace(last, writes=last.writes | {sums.buffer})]  # it adds them in place


def _ways(tiles: int, filters: int, threads: int) -> tuple[int, int]:
    """Into how many parts tiles and filters are cut, so that threads share a gradient of taps.

    What a thread transforms it multiplies by itself.  Sums of parts of the tiles are added
    later, in an order that must not depend on ``threads``; for each part of the filters all
    tiles of the image are transformed.
    """
    many = tiles >= max(MANY_TILES * filters, LEAST_TILES)
    tile_ways = min(MOST_WAYS, tiles // LEAST_TILES) if many else 1
    return tile_ways, max(1, min(threads // gcd(threads, tile_ways), filters // PANEL))


_LOWER: dict[Tiles | None, Callable[..., list[Call]]] = {
    Tiles.TAPS: _taps,
    Tiles.IMAGE: _image,
    Tiles.WHOLE: _whole,
    Tiles.GRADIENT: _gradient,
}
