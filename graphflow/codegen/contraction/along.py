"""Products of few columns, whose vectors run along a batch axis.

So it is with channels under taps of their own, and with groups of a few channels: where as many
come out of a group as go in, what a vector of the ones needs are shuffles of one of the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import gcd

from graphflow.codegen.contraction.axes_kernels import Run
from graphflow.codegen.contraction.tiling import Tiling
from graphflow.codegen.contraction.walk import LANES, A, Axes, Axis, C, Walk, merged, single_stride
from graphflow.codegen.sizes import is_fixed

FURTHEST = 3
"""Rows that are more pitches apart share too few steps."""
SHUFFLED_BYTES = 16
"""A group within so many is spread over them by one cheap instruction.  Groups twice as wide were
no faster than as columns of products, half of whose lanes are idle."""


def walk_along(
    batch: Sequence[Axis],
    rows: Sequence[Axis],
    columns: Sequence[Axis],
    depth: Sequence[Axis],
    *,
    itemsize: int,
) -> Walk | None:
    """The walk whose columns are a batch axis, of a product that has none, or those of all groups.

    ``None`` if no batch axis is one of neighbours in the first operand, or groups are too wide.
    """
    if not rows or len(columns) > 1:
        return None
    if single_stride(merged(rows), C) is None:
        rows = _falling(rows)
    inner = tuple(axis for axis in depth if columns and axis.strides[A] == 1)
    steps = merged(_falling([axis for axis in depth if axis not in inner]))
    for lane in batch:
        across = _grouped(lane, columns[0], inner, itemsize) if columns else _alone(lane)
        if across and (not columns or is_fixed(merged(rows)[-1].extent)):
            rest = merged([axis for axis in batch if axis is not lane])
            deep = (*steps, *inner) or (Axis(1, (0, 0, 0)),)
            group = columns[0].extent if columns else 1
            return Walk(rest, merged(rows), merged(across), deep, along=True, group=group)
    return None


def _alone(lane: Axis) -> Axes:
    """The axis itself, if vectors may run along it."""
    fits = lane.strides[A] == 1 and is_fixed(lane.extent) and lane.extent >= LANES
    return (lane,) if fits else ()


def _grouped(groups: Axis, column: Axis, inner: Axes, itemsize: int) -> Axes:
    """The columns of all groups, if as many go into a group as come out, neighbours all of them."""
    width = column.extent
    if len(inner) != 1 or not all(is_fixed(axis.extent) for axis in (groups, column, *inner)):
        return ()
    fits = width > 1 and SHUFFLED_BYTES % (width * itemsize) == 0
    fits = fits and groups.extent * width >= LANES
    if not fits or not inner[0].extent == width == groups.strides[A]:
        return ()
    _, b, c = column.strides
    return groups, Axis(width, (1, b, c))


def _falling(axes: Sequence[Axis]) -> list[Axis]:
    """By stride in the first operand."""
    return sorted(axes, key=lambda axis: -abs(axis.strides[A]))


def run_of(walk: Walk, tile: Tiling) -> Run | None:
    """What is taken together: places side by side and a line of their taps, or, in the gradient
    of taps, the other way round.  Steps in between are read once for all."""
    row = walk.rows[-1]
    if not walk.along or not is_fixed(row.extent):
        return None
    taps, down, along = _line(walk, tile)
    if taps == walk.group == 1:
        return None
    parts = -(-row.extent // tile.height)
    most = -(-row.extent // parts)
    return Run(walk.group, taps, most, row.extent - (parts - 1) * most, down, along)


def _line(walk: Walk, tile: Tiling) -> tuple[int, int, int]:
    """Taps that are taken together, and by how many pitches rows and these are apart."""
    depth = walk.depth if walk.group == 1 else walk.depth[:-1]
    if not depth or not is_fixed(depth[-1].extent):
        return 1, 1, 1
    apart = walk.rows[-1].strides[A], depth[-1].strides[A]
    pitch = gcd(*apart)
    if min(apart) < 1 or max(apart) > FURTHEST * pitch:
        return 1, 1, 1
    left = tile.height * (tile.vectors - 1) + tile.vectors  # registers for taps
    most = left if walk.group == 1 else max(1, (left - 1) // walk.group)
    taps = max(count for count in range(1, most + 1) if depth[-1].extent % count == 0)
    return taps, apart[0] // pitch, apart[1] // pitch
