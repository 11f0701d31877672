"""Convolution, in any number of dimensions: one primitive that is its own gradient.

Operands carry an axis of groups: ``x[N, G, C, *S]`` and ``w[G, O, C, *K]`` make
``out[N, G, O, *Y]``,

    ``out[n, g, o, y] = sum over c, k of x̂[n, g, c, y * step + k * dilation - low] w[g, o, c, k]``

where ``x̂`` is ``x`` with ``spread - 1`` zeros between neighbours and ``low`` and
``high`` of them around (negative: so many elements fewer).  The gradients are of
the same form: for ``x`` over the cotangent spread by the stride, with the kernel
flipped; for ``w`` with the cotangent as the kernel.  Attribute ``dtype`` is that of sums of
integers (as in ``matmul``).  The attribute ``direct=True`` keeps
faster algorithms, which round differently, from it and from its gradients.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from math import prod
from typing import Any

from graphflow.errors import DTypeError, ShapeError
from graphflow.ir.dims import Dim
from graphflow.ir.op import ARRAYS, Application, Array, Builder, Kind, OpDef, OpTests, register
from graphflow.ir.ops import batches, complex_parts, phases
from graphflow.ir.ops.contract import sum_dtype
from graphflow.ir.ops.orders import LEAST_CHANNELS, WIDEST_GROUP
from graphflow.ir.ops.phases import GEOMETRY, LEADING, spread_extent
from graphflow.ir.ops.rules import (
    NUMBER,
    Attrs,
    calls,
    check_arity,
    per_axis,
    require,
    spelled,
)
from graphflow.ir.types import TensorType

FEW_TERMS, MOST_TERMS = 16, 64
"""A kernel of one channel with up to so many elements is a sum of shifted products: the most
only where channels are too few to run along them."""


def _infer_conv(types: Sequence[TensorType], attrs: Attrs) -> TensorType:
    check_arity("conv", types, 2)
    require("conv", types, NUMBER)
    x, w = types
    if x.dtype is not w.dtype:
        raise DTypeError(f"{spelled('conv', types)}: operands have different dtypes; cast one")
    if x.rank != w.rank or x.rank < LEADING:
        raise ShapeError(f"{spelled('conv', types)}: both operands need axes for groups, channels")
    if x.shape[1] != w.shape[0] or x.shape[2] != w.shape[2]:
        raise ShapeError(
            f"{spelled('conv', types)}: the input has {x.shape[1]} groups of {x.shape[2]} "
            f"channels, the kernel takes {w.shape[0]} of {w.shape[2]}"
        )
    parts = [per_axis("conv", types, attrs, key, x.rank - LEADING) for key in GEOMETRY]
    extents = [
        _windows(types, axis, *part)
        for axis, part in enumerate(zip(x.shape[LEADING:], w.shape[LEADING:], *parts))
    ]
    shape = (x.shape[0], x.shape[1], w.shape[1], *extents)
    return TensorType(sum_dtype("conv", types, attrs), shape)


def _windows(
    types: Sequence[TensorType], axis: int, extent: Dim, size: Dim, stride: int, low: int,
    high: int, spread: int, dilation: int,
) -> Dim:  # fmt: skip
    """How many positions the kernel has along a spatial axis."""
    if min(stride, spread, dilation) < 1 or size == 0:
        raise ShapeError(
            f"{spelled('conv', types)}: steps, spread, dilations and kernel extents are >= 1"
        )
    span = dilation * (size - 1) + 1
    room = spread_extent(extent, spread) + low + high - span
    if isinstance(room, int) and room < 0:
        raise ShapeError(
            f"{spelled('conv', types)}: along spatial axis {axis} the kernel spans {span} "
            f"elements, the padded input has {room + span}"
        )
    return room // stride + 1


def _conv(x: Array, w: Array, **attrs: Any) -> Array:
    """Windows of the padded input as one operand of a matrix product."""
    return _over_windows(ARRAYS, x, w, attrs)


def _padded(b: Any, x: Any, attrs: Attrs) -> Any:
    """``x`` spread and padded (or cropped) along the spatial axes."""
    spread, low, high = ((*(fill,) * LEADING, *attrs[key]) for key, fill in _PADDING)
    if any(step != 1 for step in spread):
        x = _spread(b, x, spread)
        high = tuple(p - (s - 1) * (d != 0) for p, s, d in zip(high, spread, x.shape))
    if any(p > 0 for p in (*low, *high)):
        more = [tuple(max(p, 0) for p in side) for side in (low, high)]
        x = b.pad(x, low=more[0], high=more[1], value=0)
    if any(p < 0 for p in (*low, *high)):
        starts = tuple(max(-p, 0) for p in low)
        limits = tuple(d - max(-p, 0) for d, p in zip(x.shape, high))
        x = b.slice(x, starts=starts, limits=limits, steps=(1,) * len(starts))
    return x


_PADDING = (("spread", 1), ("low", 0), ("high", 0))


def _spread(b: Any, x: Any, spread: Sequence[int]) -> Any:
    """``spread - 1`` zeros after every element: padding of an axis of its own."""
    shape = tuple(x.shape)
    pairs = tuple(extent for d in shape for extent in (d, 1))
    zeros = tuple(extent for step in spread for extent in (0, step - 1))
    wide = b.pad(b.reshape(x, shape=pairs), low=(0,) * len(pairs), high=zeros, value=0)
    return b.reshape(wide, shape=tuple(d * step for d, step in zip(shape, spread)))


def _over_windows(b: Any, x: Any, w: Any, attrs: Attrs) -> Any:
    """A product of the windows of the padded input, which are a view, with the kernel.

    A single group is no axis of the product, so that what follows has its shape.
    """
    count, alone = len(attrs["steps"]), w.shape[0] == 1
    pixel = _is_pixel(x, w, attrs)
    if pixel:
        w = _turned(b, w, attrs)
    else:
        pads = any(p > 0 for p in (*attrs["low"], *attrs["high"]))
        x = _padded(b, x, attrs)
        x = x if pads or not (_has_lanes(w) or _is_grouped(w)) else _copied(b, x)
    first = LEADING - alone
    if alone:
        x = b.reshape(x, shape=(x.shape[0], *x.shape[2:]))
        w = b.reshape(w, shape=tuple(w.shape[1:]))
    n, g, o, c = range(4)
    places, taps = tuple(range(4, 4 + count)), tuple(range(4 + count, 4 + 2 * count))
    group = () if alone else (g,)
    left, right, out = (n, *group, c), (*group, o, c), (n, *group, o, *places)
    if pixel:
        x, right = b.reshape(x, shape=tuple(x.shape[:first])), (*right, *places)
    else:
        x = b.window(
            x, axes=tuple(range(first, first + count)), sizes=tuple(w.shape[first:]),
            steps=attrs["steps"], dilations=attrs["dilations"],
        )  # fmt: skip
        left, right = (*left, *places, *taps), (*right, *taps)
    total = {"dtype": attrs["dtype"]} if "dtype" in attrs else {}
    found = b.contract(x, w, left=left, right=right, out=out, **total)
    if alone:
        found = b.reshape(found, shape=(found.shape[0], 1, *found.shape[1:]))
    return found


def _is_pixel(x: Any, w: Any, attrs: Attrs) -> bool:
    """Whether the input has one element a channel, so that a place meets one tap at most."""
    plain = all(step == 1 for key in ("steps", "dilations") for step in attrs[key])
    return plain and _are_known(w.shape[LEADING:]) and all(d == 1 for d in x.shape[LEADING:])


def _turned(b: Any, w: Any, attrs: Attrs) -> Any:
    """The tap that each place meets, zero where there is none: place 0 meets number ``low``."""
    taps = w.shape[LEADING:]
    sides = {key: tuple(pad - k + 1 for pad, k in zip(attrs[key], taps)) for key in ("low", "high")}
    flipped = b.flip(w, axes=tuple(range(LEADING, LEADING + len(taps))))
    return _padded(b, flipped, {**sides, "spread": (1,) * len(taps)})


def _decompose_conv(b: Builder, n: Application) -> Any:
    """A product over windows; with one channel a group on both sides a sum of terms."""
    x, w = n.inputs
    taps = w.shape[LEADING:]
    single = w.shape[1] == 1 and w.shape[2] == 1
    static = _are_known((*x.shape[LEADING:], *taps))
    if "dtype" in n.attrs:
        return _over_windows(b, x, w, n.attrs)
    if single and static and prod(taps) <= (FEW_TERMS if _has_lanes(w) else MOST_TERMS):
        return _sum_of_terms(b, x, w, n.attrs)
    if static and not _has_lanes(w) and _few_sums(x, w, n.attrs):
        return _sums_over_windows(b, x, w, n.attrs)
    if static and any(s != 1 for s in n.attrs["spread"]):
        if phases.are_channels(w, n.attrs):
            return phases.as_channels(b, x, w, n.attrs)
        if phases.lie_apart(n.attrs):
            return phases.one_by_one(b, x, w, n.attrs, _over_windows)
    return _over_windows(b, x, w, n.attrs)


def _has_lanes(w: Any) -> bool:
    """Whether sums of many channels are taken apart, one a channel: vectors may run along them."""
    return w.shape[1] == 1 and _are_known(w.shape[:1]) and w.shape[0] >= LEAST_CHANNELS


def _is_grouped(w: Any) -> bool:
    """Whether there are small groups, of as many channels as come out, under several taps."""
    groups, width, *rest = w.shape
    known = _are_known(w.shape)
    return known and groups > 1 < width == rest[0] <= WIDEST_GROUP and prod(rest[1:]) > 1


def _copied(b: Any, x: Any) -> Any:
    """A copy of ``x``, which lies in the order of axes that suits windows of it."""
    rank, shape = len(x.shape), tuple(x.shape)
    wide = b.pad(x, low=(0,) * rank, high=(*(0,) * (rank - 1), 1), value=0)
    return b.slice(wide, starts=(0,) * rank, limits=shape, steps=(1,) * rank)


def _are_known(extents: Sequence[Any]) -> bool:
    """Whether all are numbers."""
    return all(isinstance(d, int) for d in extents)


def _sum_of_terms(b: Builder, x: Any, w: Any, attrs: Attrs) -> Any:
    """Every tap times the elements it meets, added up: elementwise, so it fuses.

    A register tile would have one row, and packing would cost more than multiplying.
    """
    x = _padded(b, x, attrs)
    taps, steps, spacing = w.shape[LEADING:], attrs["steps"], attrs["dilations"]
    extents = x.shape[LEADING:]
    counts = [(n - d * (k - 1) - 1) // s + 1 for n, k, s, d in zip(extents, taps, steps, spacing)]
    front, factors = tuple(x.shape[:LEADING]), _factors(b, w)
    total = None
    for tap, factor in zip(product(*map(range, taps)), factors):
        begin = [k * d for k, d in zip(tap, spacing)]
        end = [b_ + (n - 1) * s + 1 for b_, n, s in zip(begin, counts, steps)]
        shown = b.slice(x, starts=(0, 0, 0, *begin), limits=(*front, *end), steps=(1, 1, 1, *steps))
        term = shown * factor
        total = term if total is None else total + term
    return total


def _factors(b: Builder, w: Any) -> list[Any]:
    """What each tap of ``w[G, 1, 1, *K]`` is multiplied by, ``[1, G, 1, 1, …]``.

    Groups are neighbours in a copy of the taps (padded, or it would be a view), so that
    vectors run along them.
    """
    taps, groups = w.shape[LEADING:], w.shape[0]
    count, ones = prod(taps), (1,) * len(taps)
    rows = b.permute(b.reshape(w, shape=(groups, count)), axes=(1, 0))
    if groups > 1:
        rows = b.pad(rows, low=(0, 0), high=(1, 0), value=0)
    parts = [
        b.slice(rows, starts=(k, 0), limits=(k + 1, groups), steps=(1, 1)) for k in range(count)
    ]
    return [b.reshape(part, shape=(1, groups, 1, *ones)) for part in parts]


def _sums_over_windows(b: Builder, x: Any, w: Any, attrs: Attrs) -> Any:
    """The sum of products at each of a few positions, for every group (:func:`_few_sums`)."""
    x = _padded(b, x, attrs)
    groups, count, taps = x.shape[1], len(attrs["steps"]), w.shape[LEADING:]
    steps, spacing = attrs["steps"], attrs["dilations"]
    spans = [d * (k - 1) + 1 for d, k in zip(spacing, taps)]
    places = [(n - s) // step + 1 for n, s, step in zip(x.shape[LEADING:], spans, steps)]
    factor, front = b.reshape(w, shape=(1, groups, *w.shape[2:])), tuple(x.shape[:LEADING])
    found = []
    for place in product(*map(range, places)):
        begin = [p * step for p, step in zip(place, steps)]
        end = [at + span for at, span in zip(begin, spans)]
        shown = b.slice(
            x, starts=(0, 0, 0, *begin), limits=(*front, *end), steps=(1, 1, 1, *spacing)
        )
        total = b.reduce_sum(shown * factor, axes=(0, *range(2, LEADING + count)))
        found.append(b.reshape(total, shape=(1, groups, 1, 1)))
    joined = found[0] if len(found) == 1 else b.concatenate(*found, axis=LEADING)
    return b.reshape(joined, shape=(1, groups, 1, *places))


def _few_sums(x: Any, w: Any, attrs: Attrs) -> bool:
    """Whether few results a group are long sums: the gradient of taps of single channels.

    As a product that has one row a group.
    """
    spans = [d * (k - 1) + 1 for d, k in zip(attrs["dilations"], w.shape[LEADING:])]
    sizes = zip(x.shape[LEADING:], spans, attrs["low"], attrs["high"], attrs["steps"])
    places = prod((n + low + high - span) // step + 1 for n, span, low, high, step in sizes)
    one = x.shape[0] == 1 and w.shape[1] == 1 and x.shape[1] > 1
    whole = all(spread == 1 for spread in attrs["spread"])
    long = not _are_known(w.shape[2:]) or prod(w.shape[2:]) > MOST_TERMS
    return one and whole and long and 0 < places <= MOST_TERMS


def _conv_input(b: Builder, n: Application, ct: Any) -> Any:
    """The cotangent, spread by the stride, under the flipped kernel."""
    x, w = n.inputs
    axes = tuple(range(LEADING, len(x.shape)))
    low, high = [], []
    for size, taps, positions, stride, pad, spread, dilation in _geometry(n, ct):
        span = dilation * (taps - 1)
        low.append(span - pad)
        wanted = spread_extent(size, spread) + span
        high.append(wanted - spread_extent(positions, stride) - low[-1])
    flipped = b.flip(b.permute(w, axes=(0, 2, 1, *axes)), axes=axes)
    return b.conv(
        ct, flipped, steps=n.attrs["spread"], low=tuple(low), high=tuple(high),
        spread=n.attrs["steps"], dilations=n.attrs["dilations"], **_method(n.attrs),
    )  # fmt: skip


def _conv_kernel(b: Builder, n: Application, ct: Any) -> Any:
    """The cotangent as the kernel, over the input with batch and channels exchanged."""
    x = n.inputs[0]
    axes = tuple(range(LEADING, len(x.shape)))
    high = [
        dilation * (taps - 1) + spread_extent(positions, stride) - spread_extent(size, spread) - pad
        for size, taps, positions, stride, pad, spread, dilation in _geometry(n, ct)
    ]
    found = b.conv(
        b.permute(x, axes=(2, 1, 0, *axes)), b.permute(ct, axes=(1, 2, 0, *axes)),
        steps=n.attrs["dilations"], low=n.attrs["low"], high=tuple(high),
        spread=n.attrs["spread"], dilations=n.attrs["steps"], **_method(n.attrs),
    )  # fmt: skip
    return b.permute(found, axes=(1, 2, 0, *axes))


def _method(attrs: Attrs) -> dict[str, bool]:
    return {"direct": True} if attrs.get("direct") else {}


def _geometry(n: Application, ct: Any) -> zip[tuple[Any, ...]]:
    """Per spatial axis: extent, kernel extent, positions, stride, low padding, spread, dilation."""
    x, w = n.inputs
    shapes = (tuple(t.shape)[LEADING:] for t in (x, w, ct))
    return zip(*shapes, *(n.attrs[key] for key in ("steps", "low", "spread", "dilations")))


def _attrs(
    count: int, strides: int = 1, low: int = 0, high: int = 0, spread: int = 1, dilation: int = 1
) -> dict[str, tuple[int, ...]]:
    values = (strides, low, high, spread, dilation)
    return {key: (value,) * count for key, value in zip(GEOMETRY, values)}


CONV = register(
    OpDef(
        name="conv",
        kind=Kind.CONTRACTION,
        summary="Convolution of x[N, G, C, ...] with w[G, O, C, ...], groups apart.",
        infer=_infer_conv,
        reference=_conv,
        vjp=(_conv_input, _conv_kernel),
        parts=complex_parts.product,
        slides=True,
        decompose=_decompose_conv,
        cost=8.0,
        batched=batches.convolved,
        tests=OpTests(
            tolerance={"f32": 5e-6, "f64": 1e-13},
            dtypes=("f32", "f64", "i64"),
            samples=calls(
                ((2, 1, 3, 7), (1, 4, 3, 3), _attrs(1)),
                ((2, 1, 3, 7), (1, 4, 3, 3), _attrs(1, 2, 1, 1, 1, 2)),
                ((2, 2, 3, 6, 5), (2, 4, 3, 3, 2), _attrs(2, 1, 1, 1)),
                ((1, 3, 1, 6, 7), (3, 1, 1, 3, 3), _attrs(2, 2, 1, 2)),
                ((2, 1, 2, 3, 4), (1, 3, 2, 2, 3), _attrs(2, 1, 1, 2, 2)),
                ((2, 1, 2, 7, 8), (1, 3, 2, 2, 2), _attrs(2, 2, -1, -2)),
                ((1, 1, 2, 4, 3, 5), (1, 2, 2, 2, 3, 1), _attrs(3, 1, 0, 1)),
                ((0, 1, 2, 5), (1, 3, 2, 3), _attrs(1)), ((2, 1, 3), (1, 4, 3), _attrs(0)),
                ((3, 1, 2, 1, 1), (1, 3, 2, 4, 3), _attrs(2, 1, 3, 2)),
                ((3, 2, 2, 1, 1), (2, 3, 2, 2, 3), _attrs(2, 1, 4, 3, 2)),
            ),
        ),
    )
)  # fmt: skip
