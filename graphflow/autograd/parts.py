"""Gradients of leaves that are summed up part by part of a batch, in the order of a binary tree.

Each part is computed by itself inside :func:`computing`.  What a leaf's gradient is made of then
arrives part by part at histories of that leaf: a :class:`Share` a part, and one for every pair of
neighbours, up to the leaf itself, ``((0 + 1) + (2 + 3))``.  So which numbers are added does not
depend on how many of the parts one process has, as long as it has a whole branch of the tree.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from graphflow.autograd.history import Edge, GradNode, edge_of
from graphflow.dispatch import apply
from graphflow.mode import mode
from graphflow.tensor import Tensor

OUTSIDE = -1
"""The number of what belongs to no part."""

Shares = Mapping[int, GradNode]
"""By ``id`` of a leaf: where its gradient goes from one part."""


class Share(GradNode):
    """A leaf's gradient from one part, or from all parts of a branch; flows on as it is.

    In a trace it comes from part ``source`` and goes to part ``target`` of the graph.
    """

    __slots__ = ("source", "target")

    def __init__(self, edge: Edge, source: int, target: int) -> None:
        super().__init__(None, (), {})
        self.edges = (edge,)
        self.source, self.target = source, target

    def name(self) -> str:
        """``ShareBackward``."""
        return "ShareBackward"

    def cotangents(self, builder: Any, ct: Tensor, create_graph: bool) -> list[Tensor | None]:
        """All of it flows on."""
        return [in_part(ct, self.target, self.source)]

    def release(self) -> None:
        """Nothing is saved here."""


def shares(leaves: Sequence[Tensor], count: int) -> list[Shares]:
    """Histories of the ``leaves`` for each of ``count`` parts, a power of two.

    What all parts make together is a part of the graph, too, with the number ``count``; so are
    the sums of each leaf, with a number of their own: equal gradients of two leaves stay two, as
    they are where ranks reduce them, or the kernel of an update would be another one.
    """
    edges = [{id(leaf): edge for leaf in leaves if (edge := edge_of(leaf)) is not None}]
    sums = {key: count + 1 + place for place, key in enumerate(edges[0])}
    out = dict.fromkeys(sums, OUTSIDE)
    made = [_above(branch, sums, out) for branch in edges]
    while len(made) < count:
        edges = [_edges(branch) for branch in made for _ in range(2)]
        made = [_above(branch, sums, sums) for branch in edges]
    return [
        _above(_edges(branch), dict.fromkeys(sums, part), sums) for part, branch in enumerate(made)
    ]


def _above(
    edges: Mapping[int, Edge], sources: Mapping[int, int], targets: Mapping[int, int]
) -> dict[int, GradNode]:
    """Histories before ``edges``, by leaf."""
    return {key: Share(edge, sources[key], targets[key]) for key, edge in edges.items()}


def _edges(branch: Mapping[int, GradNode]) -> dict[int, Edge]:
    return {key: Edge(node, None) for key, node in branch.items()}


@contextmanager
def computing(part: Shares) -> Iterator[None]:
    """A stretch in which gradients of leaves go to the histories of ``part``."""
    held = mode.part
    try:
        mode.part = part
        yield
    finally:
        mode.part = held


def in_part(value: Tensor, number: int, before: int = OUTSIDE) -> Tensor:
    """``value`` of part ``before``, for what is made of it in part ``number``.

    Parts share no kernel, so that how each is computed does not depend on others.
    """
    if mode.tracer is None or number == before:
        return value
    return apply("part", value, number=number, before=before)
