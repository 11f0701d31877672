"""Convolution over a spread input, without the zeros between its elements.

So is a transposed convolution, and the gradient of a strided one: ``spread - 1`` zeros lie between
neighbours, and a position of the result meets only those taps whose place has the same remainder
by the spread (its *phase*).  Positions of one phase are a plain convolution of the input.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

from graphflow.ir.dims import Dim
from graphflow.ir.op import Builder
from graphflow.ir.ops.gradients import zeros
from graphflow.ir.ops.orders import LEAST_CHANNELS
from graphflow.ir.ops.rules import Attrs

Convolve = Callable[[Any, Any, Any, Attrs], Any]
"""``convolve(b, x, w, attrs)``."""

GEOMETRY = ("steps", "low", "high", "spread", "dilations")
"""Attributes of a convolution that have a number for each spatial axis."""
LEADING = 3
"""Axes before the spatial ones."""
MOST_PHASES = 16
"""Phases that have a convolution each."""


def spread_extent(extent: Dim, spread: int) -> Dim:
    """The extent with ``spread - 1`` elements between neighbours."""
    if spread == 1 or extent == 0:
        return extent
    return (extent - 1) * spread + 1


def are_channels(w: Any, attrs: Attrs) -> bool:
    """Whether phases are channels of one convolution: there are many of them, or few channels, and
    all meet as many taps."""
    spread, taps = attrs["spread"], w.shape[LEADING:]
    plain = all(step == 1 for key in ("steps", "dilations") for step in attrs[key])
    alike = all(k % s == 0 for k, s in zip(taps, spread))
    few = isinstance(w.shape[1], int) and w.shape[1] < LEAST_CHANNELS
    return plain and ((few and alike) or prod(spread) > MOST_PHASES)


def as_channels(b: Builder, x: Any, w: Any, attrs: Attrs) -> Any:
    """The positions of every phase as channels of one convolution.

    Position ``spread * q + r`` of the uncropped result meets tap ``spread * (j + 1) - 1 - r`` at
    element ``q + j + 1 - windows``, for each ``j`` below ``windows``.
    """
    spread, ones = attrs["spread"], (1,) * len(attrs["spread"])
    windows = [-(-k // s) for k, s in zip(w.shape[LEADING:], spread)]
    positions, low, high, begin, counts = _positions(x, w, attrs), [], [], [], []
    for axis, (s, taps, pad) in enumerate(zip(spread, windows, attrs["low"])):
        skipped, rest = divmod(taps * s - 1 - pad, s)
        count = -(-(rest + positions[axis]) // s)
        low.append(taps - 1 - skipped)
        high.append(count + skipped - x.shape[LEADING + axis])
        begin.append(rest)
        counts.append(count)
    plain = {**attrs, "low": tuple(low), "high": tuple(high), "spread": ones}
    found = b.conv(x, _phases_of(b, w, spread, windows), **plain)
    front, rank = (x.shape[0], x.shape[1], w.shape[1]), len(spread)
    found = b.reshape(found, shape=(*front, *spread, *counts))
    inner = range(LEADING, LEADING + rank)
    found = b.permute(found, axes=(0, 1, 2, *(at for axis in inner for at in (axis + rank, axis))))
    found = b.reshape(found, shape=(*front, *(n * s for n, s in zip(counts, spread))))
    return _cut(b, found, begin, positions)


def _phases_of(b: Builder, w: Any, spread: Sequence[int], windows: Sequence[int]) -> Any:
    """The kernel that has the taps of each phase as output channels, ``windows`` of them an axis
    (zeros where there are fewer)."""
    front, rank = tuple(w.shape[:LEADING]), len(spread)
    more = tuple(n * s - k for n, s, k in zip(windows, spread, w.shape[LEADING:]))
    if any(more):
        w = b.pad(w, low=(0,) * (LEADING + rank), high=(0, 0, 0, *more), value=0)
    pairs = tuple(extent for pair in zip(windows, spread) for extent in pair)
    inner = tuple(range(LEADING + 1, LEADING + 2 * rank, 2))
    w = b.flip(b.reshape(w, shape=(*front, *pairs)), axes=inner)
    w = b.permute(w, axes=(0, 1, *inner, 2, *(axis - 1 for axis in inner)))
    return b.reshape(w, shape=(front[0], front[1] * prod(spread), front[2], *windows))


def _cut(b: Builder, x: Any, begin: Sequence[int], extents: Sequence[int]) -> Any:
    """``extents`` positions of each spatial axis from ``begin`` on."""
    shape = (*x.shape[:LEADING], *extents)
    if tuple(x.shape) == shape:
        return x
    starts = (0, 0, 0, *begin)
    limits = (*shape[:LEADING], *(at + n for at, n in zip(begin, extents)))
    return b.slice(x, starts=starts, limits=limits, steps=(1,) * len(shape))


def _positions(x: Any, w: Any, attrs: Attrs) -> list[int]:
    """Extents of the result."""
    parts = zip(x.shape[LEADING:], w.shape[LEADING:], *(attrs[key] for key in GEOMETRY))
    return [
        (spread_extent(size, s) + low + high - dilation * (taps - 1) - 1) // step + 1
        for size, taps, step, low, high, s, dilation in parts
    ]


def lie_apart(attrs: Attrs) -> bool:
    """Whether spread axes have neither step nor dilation."""
    parts = zip(attrs["spread"], attrs["steps"], attrs["dilations"])
    return all(spread == 1 or (step, dilation) == (1, 1) for spread, step, dilation in parts)


def one_by_one(b: Builder, x: Any, w: Any, attrs: Attrs, plain: Convolve) -> Any:
    """A ``plain`` convolution for the positions of each phase, under the taps that they meet."""
    spread, positions = attrs["spread"], _positions(x, w, attrs)
    counts = [-(-p // s) for p, s in zip(positions, spread)]

    def joined(phase: tuple[int, ...]) -> Any:
        """All positions whose first remainders are ``phase``, other axes whole."""
        axis = len(phase)
        if axis == len(spread):
            return _one_phase(b, x, w, attrs, phase, counts, plain)
        found = [joined((*phase, r)) for r in range(spread[axis])]
        return found[0] if len(found) == 1 else b.concatenate(*found, axis=LEADING + 2 * axis + 1)

    whole = tuple(c * s for c, s in zip(counts, spread))
    front = (x.shape[0], x.shape[1], w.shape[1])
    out = b.reshape(joined(()), shape=(*front, *whole))
    return _cut(b, out, (0,) * len(spread), positions)


def _one_phase(
    b: Builder, x: Any, w: Any, attrs: Attrs, phase: tuple[int, ...], counts: Sequence[int],
    plain: Convolve,
) -> Any:  # fmt: skip
    """The positions of one remainder an axis, each axis followed by one of extent 1."""
    front = (x.shape[0], x.shape[1], w.shape[1])
    pairs = tuple(extent for count in counts for extent in (count, 1))
    first, low, high, sizes = [], [], [], []
    for axis, (r, s, pad) in enumerate(zip(phase, attrs["spread"], attrs["low"])):
        taps, extent = w.shape[LEADING + axis], x.shape[LEADING + axis]
        before, after = pad, attrs["high"][axis]
        if s != 1:
            start = (pad - r) % s
            taps, before = max(0, -(-(taps - start) // s)), (pad - r - start) // s
            after = counts[axis] - extent - before + taps - 1
            first.append(start)
        else:
            first.append(0)
        low.append(before)
        high.append(after)
        sizes.append(taps)
    if 0 in sizes:
        return zeros(b, (*front, *pairs), x.dtype)
    kept = b.slice(
        w, starts=(0, 0, 0, *first), limits=tuple(w.shape), steps=(1, 1, 1, *attrs["spread"])
    )
    alone = {
        "steps": attrs["steps"], "low": tuple(low), "high": tuple(high),
        "spread": (1,) * len(phase), "dilations": attrs["dilations"],
    }  # fmt: skip
    return b.reshape(plain(b, x, kept, alone), shape=(*front, *pairs))
