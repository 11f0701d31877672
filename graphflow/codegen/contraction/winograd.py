"""Convolution by Winograd's transforms: the calls, and into how many tiles they are cut."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from graphflow.codegen.contraction.call import PARALLEL_FLOPS, Scratch, address, rounded_up
from graphflow.codegen.contraction.choice import Choice, advised, choose
from graphflow.codegen.contraction.tiling import cache_sizes, tiling
from graphflow.codegen.contraction.winograd_kernels import DEPTH, PART, RUN, winograd_kernel
from graphflow.codegen.epilogue import Epilogue, epilogue_words, with_epilogue
from graphflow.codegen.layout import Layout
from graphflow.codegen.schedule import Argument, Call, Value
from graphflow.codegen.sizes import example_of, least
from graphflow.codegen.target import LINE_BYTES, chosen_target
from graphflow.ir.formulas.winograd import TAPS
from graphflow.ir.node import Node
from graphflow.ir.op import Tiles
from graphflow.ir.ops.winograd import PANEL, panel_of
from graphflow.ir.types import TensorType
from graphflow.records import replace

MOST_TILES = 96
"""Tiles of a block: more gain nothing."""
FEWEST_TILES = {False: 12, True: 48}
"""Tiles of a block, at least; more where the taps of one product are not in cache (True)."""
MOST_PARTS = 64
"""Blocks of tiles whose products are added to a gradient."""
SAME_PLACES = 16
"""Rows a multiple of so many lines apart have at most four places in a first-level cache."""
LITTLE_BESIDE = 6
"""Sums are little beside what is multiplied for them at a time: one for so many elements."""


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
    return node.op.tiles is Tiles.IMAGE and bool(node.attrs["last"])


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
    # Few steps stay in the second-level cache, but each part reads and writes the sums.
    small = LITTLE_BESIDE * channels * filters <= DEPTH // 2 * (channels + filters)
    fewest, usual = DEPTH // 2 if small else DEPTH, example_of(tiles)
    parts = -(-usual // max(fewest, -(-usual // (MOST_PARTS * fewest)) * fewest))
    part = -(-tiles // parts)
    line = LINE_BYTES // dtype.itemsize
    in_row = (-(-channels // line) | 1) * line  # odd numbers of lines: all sets of a cache
    out_panel = part * PANEL
    planes = (
        part * in_row + line,
        -(-filters // PANEL) * out_panel + line,
        channels * filters + line,
    )
    patch = products * max(channels, filters)
    ins, outs, sums = (context.temporary(TensorType(dtype, (products, d))) for d in planes)
    scratch = context.temporary(TensorType(dtype, (context.threads, max(patch, 9 * PART * RUN))))
    calls = []
    for number in range(parts):
        t0 = least(number * part, tiles)
        t1 = least(t0 + part, tiles)  # of other sizes than the example the last may be empty
        count = t1 - t0
        words = _values(
            scratch.shape[1], t0, t1, channels, filters, *extents, *places,
            *node.attrs["low"], *strides, in_row, planes[0], out_panel, planes[1],
        )  # fmt: skip
        work = 8 * products * count * (channels + filters)
        calls.append(
            _call("pairs", node, (x, ct, ins, outs, scratch), (ins, outs, scratch), words, work)
        )
        words = _values(
            products, count, channels, filters, t0, in_row, planes[0], out_panel, *planes[1:]
        )
        work = 2 * products * count * channels * filters
        call = _call("sums", node, (ins, outs, sums), (sums,), words, work)
        calls.append(replace(call, reads=call.reads | {sums.buffer}))
    words = _values(filters, channels, planes[2], *w.strides)
    work = 8 * products * channels * filters
    calls.append(_call("back", node, (sums, w, scratch), (w, scratch), words, work))
    return calls


_LOWER: dict[Tiles | None, Callable[..., list[Call]]] = {
    Tiles.TAPS: _taps,
    Tiles.IMAGE: _image,
    Tiles.GRADIENT: _gradient,
}
