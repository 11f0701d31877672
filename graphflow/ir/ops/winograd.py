"""Convolution under 3 x 3 taps by Winograd's transforms (:mod:`graphflow.ir.formulas.winograd`).

Made of ``conv`` by a pass, after differentiation.  Images are ``[N, C, H, W]``, or with ``last``
``[N, H, W, C]``; tiles of ``size * size`` results overlap by two elements where they read.
Transformed taps are a matrix: a row for each of the ``(size + 2)**2`` products, in it panels of
neighbouring filters, ``[panel, C, filter]``, as tiles are multiplied, and ``GAP`` elements more.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from graphflow.errors import ShapeError
from graphflow.ir.dims import Dim
from graphflow.ir.formulas.winograd import TAPS, both_sides
from graphflow.ir.op import NON_DIFFERENTIABLE, Array, Kind, OpDef, OpTests, Tiles, register
from graphflow.ir.ops import orders
from graphflow.ir.ops.rules import FLOAT, Attrs, calls, check_arity, require, spelled
from graphflow.ir.types import TensorType

PANEL = 16
"""Filters whose taps lie together, if not twice as many do."""
GAP = 16
"""Elements between rows: rows of 2**n elements would compete for the same places of a cache."""


def _check(name: str, types: Sequence[TensorType], ranks: Sequence[int]) -> None:
    check_arity(name, types, len(ranks))
    require(name, types, FLOAT)
    if [type.rank for type in types] != list(ranks):
        raise ShapeError(
            f"{spelled(name, types)}: operands have {' and '.join(map(str, ranks))} axes"
        )


def panel_of(filters: Dim) -> int:
    """Filters whose taps lie together: two vectors of 64 bytes, where that leaves none empty."""
    return 2 * PANEL if isinstance(filters, int) and filters % (2 * PANEL) == 0 else PANEL


def _row(filters: Dim, channels: Dim) -> Dim:
    """Elements of a row of transformed taps."""
    panel = panel_of(filters)
    return (filters + panel - 1) // panel * channels * panel + GAP


def _infer_taps(types: Sequence[TensorType], attrs: Attrs) -> TensorType:
    _check("winograd_taps", types, (4,))
    filters, channels, *taps = types[0].shape
    if any(isinstance(d, int) and d != TAPS for d in taps):
        raise ShapeError(f"{spelled('winograd_taps', types)}: taps are 3 x 3")
    rows = (attrs["size"] + TAPS - 1) ** 2
    return TensorType(types[0].dtype, (rows, _row(filters, channels)))


def _taps(w: Array, *, size: int) -> Array:
    filters, channels = w.shape[:2]
    panel = panel_of(filters)
    panels = -(-filters // panel)
    padded = np.zeros((panels * panel, channels, TAPS, TAPS), w.dtype)
    padded[:filters] = w
    found = both_sides("taps", size, padded.transpose(2, 3, 0, 1))
    rows = found.shape[0] ** 2
    found = found.reshape(rows, panels, panel, channels).swapaxes(2, 3)
    return np.pad(found.reshape(rows, -1), ((0, 0), (0, GAP)))


WINOGRAD_TAPS = register(
    OpDef(
        name="winograd_taps",
        kind=Kind.CONTRACTION,
        summary="Taps w[K, C, 3, 3] transformed, in the order in which tiles are multiplied.",
        infer=_infer_taps,
        reference=_taps,
        vjp=NON_DIFFERENTIABLE,
        tiles=Tiles.TAPS,
        cost=16.0,
        tests=OpTests(
            gradient=False,
            tolerance={"f32": 2e-6, "f64": 1e-13},
            samples=calls(
                ((5, 3, 3, 3), {"size": 4}),
                ((17, 2, 3, 3), {"size": 2}),
                ((32, 2, 3, 3), {"size": 4}),
            ),
        ),
    )
)


def _axes(last: bool) -> tuple[int, int, int, int]:
    """Where images, channels, rows and columns are."""
    return (0, 3, 1, 2) if last else (0, 1, 2, 3)


def _infer_image(types: Sequence[TensorType], attrs: Attrs) -> TensorType:
    _check("winograd", types, (4, 2))
    x, taps = types
    channels, filters = x.shape[_axes(attrs["last"])[1]], attrs["filters"]
    wanted = ((attrs["size"] + TAPS - 1) ** 2, _row(filters, channels))
    if all(isinstance(d, int) for d in (*taps.shape, *wanted)) and taps.shape != wanted:
        raise ShapeError(
            f"{spelled('winograd', types)}: {filters} filters over {channels} channels have "
            f"transformed taps of shape {list(wanted)}"
        )
    return _image_type("winograd", types, filters, attrs)


def _image_type(name: str, types: Sequence[TensorType], filters: Dim, attrs: Attrs) -> TensorType:
    """The type of an image under taps."""
    images, _, *extents = (types[0].shape[axis] for axis in _axes(attrs["last"]))
    low, high = attrs["low"], attrs["high"]
    sizes = [d + p + q - TAPS + 1 for d, p, q in zip(extents, low, high, strict=True)]
    if any(isinstance(d, int) and d < 0 for d in sizes) or min(*low, *high) < 0:
        raise ShapeError(f"{spelled(name, types)}: padding is >= 0 and leaves room for taps")
    shape = (images, *sizes, filters) if attrs["last"] else (images, filters, *sizes)
    return TensorType(types[0].dtype, shape)


def _windows(x: Array, low: tuple[int, int], counts: Sequence[int], step: int, span: int) -> Array:
    """Windows of ``x[N, C, H, W]`` as ``[span, span, C, N, *counts]``, zeros around."""
    room = [(count - 1) * step + span for count in counts]
    n, c, *extents = x.shape
    padded = np.zeros((n, c, *room), x.dtype)
    taken = [max(0, min(e, r - p)) for e, r, p in zip(extents, room, low, strict=True)]
    (top, left), (high, wide) = low, taken
    padded[:, :, top : top + high, left : left + wide] = x[:, :, :high, :wide]
    shown = np.lib.stride_tricks.sliding_window_view(padded, (span, span), (2, 3))
    return shown[:, :, ::step, ::step].transpose(4, 5, 1, 0, 2, 3)


def _image(
    x: Array, taps: Array, *, size: int, filters: int, low: tuple[int, int],
    high: tuple[int, int], last: bool,
) -> Array:  # fmt: skip
    x = x.transpose(_axes(last))
    n, c, *extents = x.shape
    sizes = [d + p + q - TAPS + 1 for d, p, q in zip(extents, low, high, strict=True)]
    counts, span = [-(-d // size) for d in sizes], size + TAPS - 1
    ins = both_sides("input", size, _windows(x, low, counts, size, span))
    factors = taps[:, : taps.shape[1] - GAP].reshape(span * span, -1, c, panel_of(filters))
    factors = factors.transpose(0, 1, 3, 2).reshape(span * span, -1, c)[:, :filters]
    products = factors @ ins.reshape(span * span, c, -1)
    outs = both_sides("result", size, products.reshape(span, span, filters, n, *counts))
    wide = [count * size for count in counts]
    found = outs.transpose(3, 2, 4, 0, 5, 1).reshape(n, filters, *wide)
    found = found[:, :, : sizes[0], : sizes[1]]
    return np.ascontiguousarray(found.transpose(0, 2, 3, 1) if last else found)


def _geometry(
    size: int, low: int, high: int, filters: int = 0, last: bool = False
) -> dict[str, Any]:
    facts: dict[str, Any] = {"size": size, "low": (low, low), "high": (high, high), "last": last}
    return {**facts, "filters": filters} if filters else facts


WINOGRAD = register(
    OpDef(
        name="winograd",
        kind=Kind.CONTRACTION,
        summary="Convolution of images with 3 x 3 taps that winograd_taps has transformed.",
        infer=_infer_image,
        reference=_image,
        vjp=NON_DIFFERENTIABLE,
        tiles=Tiles.IMAGE,
        reordered=orders.of_tiles,
        cost=16.0,
        tests=OpTests(
            gradient=False,
            tolerance={"f32": 1e-5, "f64": 1e-13},
            samples=calls(
                ((2, 3, 5, 6), (36, 3 * 16 + 16), _geometry(4, 1, 1, 5)),
                ((2, 9, 5, 3), (16, 2 * 3 * 16 + 16), _geometry(2, 2, 0, 17, True)),
                ((1, 2, 3, 3), (36, 2 * 16 + 16), _geometry(4, 0, 0, 1)),
                ((2, 3, 5, 6), (16, 6 * 64 + 16), _geometry(2, 1, 1, 64, True)),
            ),
        ),
    )
)


def _infer_whole(types: Sequence[TensorType], attrs: Attrs) -> TensorType:
    _check("winograd_whole", types, (4, 3))
    x, w = types
    channels = x.shape[_axes(attrs["last"])[1]]
    known = all(isinstance(d, int) for d in (*w.shape, channels))
    if known and w.shape[1:] != (channels, TAPS**2):
        raise ShapeError(
            f"{spelled('winograd_whole', types)}: taps over {channels} channels are of shape "
            f"[filters, {channels}, {TAPS**2}]"
        )
    return _image_type("winograd_whole", types, w.shape[0], attrs)


def _whole(
    x: Array, w: Array, *, size: int, low: tuple[int, int], high: tuple[int, int], last: bool
) -> Array:
    taps = _taps(w.reshape(*w.shape[:2], TAPS, TAPS), size=size)
    return _image(x, taps, size=size, filters=w.shape[0], low=low, high=high, last=last)


WINOGRAD_WHOLE = register(
    OpDef(
        name="winograd_whole",
        kind=Kind.CONTRACTION,
        summary="Convolution of images with taps w[K, C, 9], transformed where they are used.",
        infer=_infer_whole,
        reference=_whole,
        vjp=NON_DIFFERENTIABLE,
        tiles=Tiles.WHOLE,
        reordered=orders.of_tiles,
        cost=16.0,
        tests=OpTests(
            gradient=False,
            tolerance={"f32": 1e-5, "f64": 1e-13},
            samples=calls(
                ((2, 3, 5, 6), (5, 3, 9), _geometry(4, 1, 1)),
                ((2, 9, 5, 3), (17, 3, 9), _geometry(2, 2, 0, last=True)),
                ((1, 20, 3, 3), (32, 20, 9), _geometry(4, 1, 1)),
            ),
        ),
    )
)


def _infer_gradient(types: Sequence[TensorType], attrs: Attrs) -> TensorType:
    _check("winograd_gradient", types, (4, 4))
    axes = _axes(attrs["last"])
    (images, channels, *extents), (same, filters, *places) = (
        [type.shape[axis] for axis in axes] for type in types
    )
    pads = zip(extents, attrs["low"], attrs["high"], strict=True)
    if images != same or places != [d + p + q - TAPS + 1 for d, p, q in pads]:
        raise ShapeError(
            f"{spelled('winograd_gradient', types)}: the second operand is not of the shape that "
            f"the first has under taps, padded by {attrs['low']} and {attrs['high']}"
        )
    return TensorType(types[0].dtype, (filters, channels, TAPS, TAPS))


def _gradient(
    x: Array, ct: Array, *, size: int, low: tuple[int, int], high: tuple[int, int], last: bool
) -> Array:
    x, ct = x.transpose(_axes(last)), ct.transpose(_axes(last))
    counts = [-(-d // size) for d in ct.shape[2:]]
    span, (filters, channels) = size + TAPS - 1, (ct.shape[1], x.shape[1])
    ins = both_sides("input", size, _windows(x, low, counts, size, span))
    outs = both_sides("cotangent", size, _windows(ct, (0, 0), counts, size, size))
    products = outs.reshape(span * span, filters, -1) @ ins.reshape(
        span * span, channels, -1
    ).swapaxes(1, 2)
    found = both_sides("taps_back", size, products.reshape(span, span, filters, channels))
    return np.ascontiguousarray(found.transpose(2, 3, 0, 1))


WINOGRAD_GRADIENT = register(
    OpDef(
        name="winograd_gradient",
        kind=Kind.CONTRACTION,
        summary="Sum over images and places of cotangents times the windows under 3 x 3 taps.",
        infer=_infer_gradient,
        reference=_gradient,
        vjp=NON_DIFFERENTIABLE,
        tiles=Tiles.GRADIENT,
        reordered=orders.of_tiles,
        cost=16.0,
        tests=OpTests(
            gradient=False,
            tolerance={"f32": 1e-5, "f64": 1e-13},
            samples=calls(
                ((2, 3, 5, 6), (2, 5, 5, 6), _geometry(4, 1, 1)),
                ((2, 9, 5, 3), (2, 9, 5, 17), _geometry(2, 2, 0, last=True)),
            ),
        ),
    )
)
