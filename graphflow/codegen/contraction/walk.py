"""The axes over which a product runs, and how they lie in its operands and result."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from graphflow.records import dataclass, replace

A, B, C = 0, 1, 2
LANES = 8
"""Columns are multiplied so many at a time, at least."""


@dataclass(frozen=True, slots=True)
class Axis:
    """An axis that runs over memory: its extent, and strides in a, b and c (0: not there)."""

    extent: int
    strides: tuple[int, int, int]


Axes = tuple[Axis, ...]


@dataclass(frozen=True, slots=True)
class Walk:
    """How a product is walked: its axes by kind, each kind outermost first."""

    batch: Axes
    rows: Axes
    columns: Axes
    depth: Axes
    along: bool = False
    """Whether the columns are a batch axis: neighbours in the first operand, too."""
    group: int = 1
    """Columns that share their sums' elements of the first operand: so many of these are the
    last axis of depth, and neighbours there."""

    def count(self, kind: str) -> int:
        """How many elements the axes of one kind run over."""
        axes: Axes = getattr(self, kind)
        return prod(axis.extent for axis in axes)


def exchanged(axis: Axis) -> Axis:
    """``axis`` where operands are exchanged."""
    a, b, c = axis.strides
    return Axis(axis.extent, (b, a, c))


def merged(axes: Sequence[Axis]) -> Axes:
    """Axes that run on from one another in all of memory, as one."""
    found: list[Axis] = []
    for axis in axes:
        if found and all(
            o == i * axis.extent for o, i in zip(found[-1].strides, axis.strides, strict=True)
        ):
            axis = replace(axis, extent=found.pop().extent * axis.extent)
        found.append(axis)
    return tuple(found)


def alone(axes: Axes, which: int) -> Axes:
    """The axes as one place sees them, merged as far as they run on there."""
    return merged([Axis(axis.extent, (axis.strides[which], 0, 0)) for axis in axes])


def single_stride(axes: Axes, which: int) -> int | None:
    """The stride with which all of ``axes`` run on in one place; None if there is none."""
    found = alone(axes, which)
    if not found:
        return 0
    return found[0].strides[0] if len(found) == 1 else None
