"""What holds of elements that were picked is found out of what was picked.

Max pooling of ``relu(x)`` shows one element a window.  Its cotangent is that of the result
there, and 0 elsewhere (:class:`graphflow.ir.op.Choice`); then relu's gradient clears it where
``relu(x)`` is 0.  Where an element is shown, it is the result: so the cotangent of the
result can be cleared before it is spread over windows, and no mask as large as ``x`` need be
kept.  The sum of what is spread is that of what it is spread of.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from graphflow.ir.build import NODES, emit
from graphflow.ir.graph import Graph
from graphflow.ir.node import Node
from graphflow.ir.op import Application, Choice, Kind
from graphflow.ir.ops.gradients import mask
from graphflow.ir.ops.orders import below_reshape
from graphflow.ir.pattern import match, parse_pattern, splat_of
from graphflow.ir.types import TensorType
from graphflow.passes.base import Pass
from graphflow.passes.dataflow import is_alias, view_pieces
from graphflow.passes.in_regions import in_regions
from graphflow.passes.rewrite import hits, rewrite
from graphflow.records import dataclass as record
from graphflow.records import replace

_CLEARED = tuple(map(parse_pattern, ("where(%m, 0.0, %v)", "where(%m, %v, 0.0)")))
_SPREAD = parse_pattern("where(%c, %v, 0.0)")
_SUM = parse_pattern("reduce_sum(%x)")
MOST_STEPS = 8
"""Operations of a mask."""


@dataclass(frozen=True)
class Picked(Pass):
    """Clear and sum what comes back to picked elements before it is spread::

        %p = pick(%y, %i, %o)                      %p = pick(%y, %i, %o)
        %g = where(eq(%i, places), %ct, 0)    →    %m = where(le(%p, 0), 0, %ct)
        %m = where(le(%y, 0), 0, %g)               %g = where(eq(%i, places), %m, 0)

    Sums may be taken in another order.
    """

    name: ClassVar[str] = "picked"

    def run(self, graph: Graph) -> Graph:
        """The graph with masks and sums of what was picked."""
        return in_regions(graph, _rewritten)


def _rewritten(graph: Graph) -> Graph:
    picks = [n for n in graph.nodes if n.op.choice is not None]
    if not picks:
        return graph
    return rewrite(graph, _Known(picks).earlier, into_regions=False)


@record(frozen=True, slots=True)
class _Spread:
    """A cotangent that was spread over what ``pick`` shows, and then went back through
    ``views``, the last first: ``inner`` is that of the result, ``like`` what it belongs to."""

    pick: Node
    inner: Node
    like: Node
    views: tuple[Node, ...] = ()


class _Known:
    """Some picks, and the cotangents of what they show that came by."""

    def __init__(self, picks: Sequence[Node]) -> None:
        self.picks = {_shown(pick, pick)[0]: pick for pick in picks}
        self.spread: dict[Node, _Spread] = {}

    def earlier(self, node: Node) -> Node | None:
        """``node``, a mask or sum of what was spread, done before that; else ``None``."""
        if not isinstance(node.type, TensorType):
            return None
        if node.op.kind is Kind.VIEW:
            self._go_back(node)
            return None
        self._begin(node)
        return self._cleared(node) or self._summed(node)

    def _begin(self, node: Node) -> None:
        """Remember ``node`` if it spreads something."""
        bound = match(_SPREAD, node)
        pick = self.picks.get(bound["c"]) if bound else None
        if bound is None or pick is None or not bound["v"].inputs:
            return
        inner, like = bound["v"].inputs[0], pick.inputs[0]
        fits = inner.shape == pick.shape and node.shape == like.shape
        if fits and _shown(pick, inner) == (bound["c"], bound["v"]):
            self.spread[node] = _Spread(pick, inner, like)

    def _go_back(self, node: Node) -> None:
        """Remember ``node`` if it is the cotangent of what a view showed."""
        found = self.spread.get(node.inputs[0]) if len(node.inputs) == 1 else None
        if found is None or not is_alias(found.like):
            return
        if _back(found.like, node.inputs[0]) is node:
            views = (*found.views, found.like)
            self.spread[node] = replace(found, like=found.like.inputs[0], views=views)

    def _cleared(self, node: Node) -> Node | None:
        for pattern in _CLEARED:
            bound = match(pattern, node)
            found = self.spread.get(bound["v"]) if bound else None
            if bound is None or found is None or node.shape != found.like.shape:
                continue
            condition = _of_result(bound["m"], found)
            if condition is None:
                continue
            hits["clear before spreading"] += 1
            parts = [found.inner if n is bound["v"] else splat_of(n) or n for n in node.inputs[1:]]
            made: Node = mask(NODES, *_shown(found.pick, emit(node.op, condition, *parts)))
            for view in found.views:
                made = _back(view, made)
            return made
        return None

    def _summed(self, node: Node) -> Node | None:
        bound = match(_SUM, node)
        found = self.spread.get(bound["x"]) if bound else None
        if found is None:
            return None
        axes: Sequence[int] | None = node.attrs["axes"]
        for view in reversed(found.views):
            axes = None if axes is None else _axes_shown(view, axes)
        boxes = found.pick.attrs["axes"]
        if axes is None or not set(boxes) <= set(axes):
            return None
        left = [a for a in range(len(found.pick.inputs[0].shape)) if a not in boxes]
        summed = tuple(k for k, axis in enumerate(left) if axis in axes)
        choice, application = _choice(found.pick)
        whole = choice.together(NODES, application, found.inner)
        made = emit(node.op, whole, **{**node.attrs, "axes": summed}) if summed else whole
        hits["sum before spreading"] += 1
        return made if made.type == node.type else emit("reshape", made, shape=node.shape)


def _choice(pick: Node) -> tuple[Choice, Application]:
    assert pick.op.choice is not None
    return pick.op.choice, Application(pick.inputs, pick, pick.attrs)


def _shown(pick: Node, value: Node) -> tuple[Node, Node]:
    """The condition that elements are shown by ``pick``, and ``value`` at all of them."""
    choice, application = _choice(pick)
    condition, spread = choice.shown(NODES, application, value)
    return condition, spread


def _back(view: Node, cotangent: Node) -> Node:
    """The cotangent of what ``view`` shows."""
    rules = view.op.vjp
    assert isinstance(rules, tuple)
    (rule,) = rules
    assert rule is not None
    made: Node = rule(NODES, Application(view.inputs, view, view.attrs), cotangent)
    return made


def _of_result(condition: Node, found: _Spread) -> Node | None:
    """``condition`` with the picked element for what it was picked of, if it is made of that
    and constants, element by element."""
    made: dict[Node, Node] = {found.like: found.pick}
    stack = [condition]
    while stack:
        node = stack[-1]
        scalar = splat_of(node)
        if node in made or scalar is not None:
            made.setdefault(node, scalar or node)
            stack.pop()
            continue
        if node.op.kind is not Kind.ELEMENTWISE or node.shape != found.like.shape:
            return None
        waiting = [n for n in node.inputs if n not in made]
        if waiting:
            stack.extend(waiting)
        else:
            made[node] = emit(node.op, *(made[n] for n in node.inputs), **node.attrs)
            stack.pop()
        if len(made) + len(stack) > MOST_STEPS:
            return None
    return made[condition]


def _axes_shown(view: Node, axes: Sequence[int]) -> Sequence[int] | None:
    """The axes of ``view`` over which a cotangent of it has the sums that the cotangent of what
    it shows has over ``axes``; ``None`` if there are none."""
    shape, pieces = view.inputs[0].shape, view_pieces(view)
    if not pieces:
        return below_reshape(shape, view.shape, axes)
    kept = []
    for axis, index in enumerate(pieces[0].index):
        if axis in axes:
            continue
        if len(index.terms) != 1 or index.offset != 0 or index.terms[0][1] != 1:
            return None
        place = int(index.terms[0][0][1:])
        if view.shape[place] != shape[axis]:
            return None
        kept.append(place)
    return [a for a in range(len(view.shape)) if a not in kept] if kept == sorted(kept) else None
