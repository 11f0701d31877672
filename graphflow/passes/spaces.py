"""The iteration spaces of a fused loop group, and whether its members fit them.

A loop group runs over one *domain* (a shape) and folds one set of *reduced*
axes of it.  Every member lives in one of three spaces:

* ``FULL``: one value for each element of the domain;
* ``KEPT``: constant along the reduced axes, which have extent 1 in its shape;
* ``DROPPED``: the same, with the reduced axes missing from its shape.

A reduction reads ``FULL`` and yields ``DROPPED``; views that insert or repeat
axes lead back.  Members read each other only at their own index: axis by
axis, both ends of an edge must run along the same axis of the domain.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from functools import lru_cache

from graphflow.ir.dims import Dim, Shape, dim_product
from graphflow.passes.dataflow import Dataflow, Edge, Role, folded_axes

SERIAL_ROWS = 16
"""With fewer rows than this a group of several stages would leave threads idle …"""
SERIAL_SIZE = 1 << 15
"""… which matters for domains of more elements than this."""


class Space(enum.Enum):
    """Where a member of a loop group varies; see the module's text."""

    FULL = "full"
    KEPT = "kept"
    DROPPED = "dropped"


@lru_cache(maxsize=256)
def kept_shape(domain: Shape, reduced: tuple[int, ...]) -> Shape:
    """``domain`` with the reduced axes at extent 1."""
    return tuple(1 if axis in reduced else d for axis, d in enumerate(domain))


@lru_cache(maxsize=256)
def dropped_shape(domain: Shape, reduced: tuple[int, ...]) -> Shape:
    """``domain`` without the reduced axes."""
    return tuple(d for axis, d in enumerate(domain) if axis not in reduced)


@lru_cache(maxsize=256)
def several_stages(domain: Shape, reduced: tuple[int, ...]) -> bool:
    """Whether values may flow from a reduction back over the domain.

    They may when the reduced axes are the innermost ones (a row stays in cache
    between stages) and there are enough rows, or little enough work.
    """
    if reduced != tuple(range(len(domain) - len(reduced), len(domain))):
        return False
    size, rows = dim_product(domain), dim_product(dropped_shape(domain, reduced))
    return _at_least(rows, SERIAL_ROWS) or not _at_least(size, SERIAL_SIZE)


def _at_least(extent: Dim, bound: int) -> bool:
    return not isinstance(extent, int) or extent >= bound


def assign_spaces(
    flow: Dataflow, members: Iterable[int], domain: Shape, reduced: tuple[int, ...]
) -> dict[int, Space] | None:
    """The space of every member (ascending work numbers), ``None`` if one has none."""
    spaces: dict[int, Space] = {}
    stages: dict[int, int] = {}
    single_stage = bool(reduced) and not several_stages(domain, reduced)
    for number in members:
        target = _target(flow, number, domain, reduced)
        if target is None:
            return None
        fold = flow.roles[number] is Role.REDUCTION
        stage = 0
        for edge in flow.edges[number]:
            space = spaces.get(edge.source)
            if space is None:
                continue
            if not _fits(flow, number, edge, space, target, domain, reduced):
                return None
            stage = max(stage, stages[edge.source])
        if single_stage and stage and target is Space.FULL:
            return None
        stages[number] = stage + fold
        spaces[number] = Space.DROPPED if fold else target
    return spaces


def fits_together(
    flow: Dataflow,
    apart: Iterable[Iterable[int]],
    edges: Iterable[tuple[int, Edge]],
    domain: Shape,
    reduced: tuple[int, ...],
) -> bool:
    """Whether groups over a domain that is good for several stages are one group together.

    ``apart`` are the members of those that had another domain, ``edges`` what readers of
    one group read from another.
    """
    if any(assign_spaces(flow, members, domain, reduced) is None for members in apart):
        return False
    for reader, edge in edges:
        source = space_of(flow, edge.source, domain, reduced)
        target = _target(flow, reader, domain, reduced)
        if source is None or target is None:
            return False
        if not _fits(flow, reader, edge, source, target, domain, reduced):
            return False
    return True


def _fits(
    flow: Dataflow,
    reader: int,
    edge: Edge,
    source: Space,
    target: Space,
    domain: Shape,
    reduced: tuple[int, ...],
) -> bool:
    """Whether a member that reads in space ``target`` may read another, which is in ``source``."""
    rank = len(domain)
    if edge.gathered and target is Space.KEPT:
        return _gathers(edge, source, rank, reduced)
    if flow.roles[reader] is Role.READ:
        return False
    return _flows(edge, source, target, rank, _kept_axes(rank, reduced))


@lru_cache(maxsize=256)
def _kept_axes(rank: int, reduced: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(axis for axis in range(rank) if axis not in reduced)


def _gathers(edge: Edge, source: Space, rank: int, reduced: tuple[int, ...]) -> bool:
    """Whether a gather picks one element a row of a member (the label's logit, say)."""
    if source is not Space.FULL or edge.axes is None:
        return False
    expected = tuple(-1 if axis in reduced else axis for axis in range(rank))
    return edge.axes == expected


@lru_cache(maxsize=256)
def _shapes(domain: Shape, reduced: tuple[int, ...]) -> dict[Shape, Space]:
    """The space of an elementwise member by its shape."""
    if not reduced:
        return {domain: Space.FULL}
    return {
        dropped_shape(domain, reduced): Space.DROPPED,
        kept_shape(domain, reduced): Space.KEPT,
        domain: Space.FULL,  # last: with extents of 1 the shapes can coincide
    }


def _target(flow: Dataflow, number: int, domain: Shape, reduced: tuple[int, ...]) -> Space | None:
    """The space in which a member reads its operands, ``None`` if it fits none."""
    node = flow.work[number]
    if flow.roles[number] is not Role.REDUCTION:
        return _shapes(domain, reduced).get(node.shape)
    fits = folded_axes(node) == reduced and node.inputs[0].shape == domain
    return Space.FULL if fits else None


def space_of(flow: Dataflow, number: int, domain: Shape, reduced: tuple[int, ...]) -> Space | None:
    """The space that a member's own values are in."""
    target = _target(flow, number, domain, reduced)
    fold = flow.roles[number] is Role.REDUCTION
    return Space.DROPPED if fold and target is not None else target


@lru_cache(maxsize=64)
def _all_axes(rank: int) -> tuple[int, ...]:
    return tuple(range(rank))


def reads_at_own_index(flow: Dataflow, reader: int, edge: Edge) -> bool:
    """Whether a member of a group without reductions reads another at its own index."""
    if flow.roles[reader] is Role.READ:
        return False
    rank = len(flow.work[reader].shape)
    return _flows(edge, Space.FULL, Space.FULL, rank, _all_axes(rank))


def _flows(edge: Edge, source: Space, target: Space, rank: int, kept_axes: tuple[int, ...]) -> bool:
    """True when every axis of the operand runs along the same domain axis at both ends."""
    if edge.axes is None or (source is Space.FULL and target is not Space.FULL):
        return False
    if source is Space.FULL and edge.axes == _all_axes(rank):
        return True
    shape = edge.operand.shape
    shift = (len(kept_axes) if target is Space.DROPPED else rank) - len(shape)
    for axis, origin in enumerate(edge.axes):
        if origin < 0 or shape[axis] == 1:
            continue
        here = kept_axes[axis + shift] if target is Space.DROPPED else axis + shift
        there = kept_axes[origin] if source is Space.DROPPED else origin
        if here != there:
            return False
    return True
