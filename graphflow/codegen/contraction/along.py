"""Products without columns, whose vectors run along a batch axis.

So it is with channels under taps of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import gcd

from graphflow.codegen.contraction.axes_kernels import Run
from graphflow.codegen.contraction.tiling import Tiling
from graphflow.codegen.contraction.walk import LANES, A, Axis, C, Walk, merged, single_stride
from graphflow.codegen.sizes import is_fixed

FURTHEST = 3
"""Rows that are more pitches apart share too few steps."""


def walk_along(
    batch: Sequence[Axis], rows: Sequence[Axis], columns: Sequence[Axis], depth: Sequence[Axis]
) -> Walk | None:
    """The walk whose columns are a batch axis, of a product that has none; None if it has some, or
    no batch axis is one of neighbours in the first operand."""
    lanes = [axis for axis in batch if _is_lane(axis)]
    if columns or not rows or not lanes:
        return None
    if single_stride(merged(rows), C) is None:
        rows = _falling(rows)
    rest = merged([axis for axis in batch if axis is not lanes[0]])
    steps = _falling(depth) or [Axis(1, (0, 0, 0))]
    return Walk(rest, merged(rows), (lanes[0],), merged(steps), along=True)


def _is_lane(axis: Axis) -> bool:
    return axis.strides[A] == 1 and is_fixed(axis.extent) and axis.extent >= LANES


def _falling(axes: Sequence[Axis]) -> list[Axis]:
    """By stride in the first operand."""
    return sorted(axes, key=lambda axis: -abs(axis.strides[A]))


def run_of(walk: Walk, tile: Tiling) -> Run | None:
    """What is taken together: places side by side and a line of their taps, or, in the gradient
    of taps, the other way round.  Steps in between are read once for all."""
    row, step = walk.rows[-1], walk.depth[-1]
    apart = row.strides[A], step.strides[A]
    if not walk.along or min(apart) < 1 or not all(map(is_fixed, (row.extent, step.extent))):
        return None
    down, along = (stride // gcd(*apart) for stride in apart)
    registers = tile.height * (tile.vectors - 1) + tile.vectors  # that are left for taps
    taps = max(count for count in range(1, registers + 1) if step.extent % count == 0)
    if taps == 1 or max(down, along) > FURTHEST:
        return None
    parts = -(-row.extent // tile.height)
    most = -(-row.extent // parts)
    return Run(taps, most, row.extent - (parts - 1) * most, down, along)
