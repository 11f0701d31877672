"""Factors of a convolution's channels go into its taps, where taps and factors are kept.

A normalisation by running statistics is ``(y - mean) * factor``, one number a channel each.
Where all of that depends on state alone, ``conv(x, w) * s`` is ``conv(x, w * s)``, whose taps
are made once (:mod:`graphflow.codegen.kept`), and what is added is one number a channel.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from math import prod
from typing import ClassVar

from graphflow.ir.build import emit
from graphflow.ir.graph import Graph
from graphflow.ir.node import Node, with_inputs
from graphflow.ir.op import Kind
from graphflow.passes.base import Pass
from graphflow.passes.lasting import of_state_alone
from graphflow.passes.rewrite import hits
from graphflow.records import replace

FILTER = 2
"""Axis of filters in a convolution's result ``[N, G, O, *S]``."""
_CHAIN = ("add", "sub", "mul")


@dataclass(frozen=True)
class ScaledTaps(Pass):
    """Scale the taps of a convolution instead of its result, where both are kept::

        %2 = conv(%x, %w, …)                      %2 = mul(%w, %s)       (made once)
        %3 = mul(sub(%2, %mean), %s)    →         %3 = sub(conv(%x, %2, …), mul(%mean, %s))

    Only where nothing else reads the result.  Rounding differs by that of one product.
    """

    name: ClassVar[str] = "scaled_taps"

    def run(self, graph: Graph) -> Graph:
        """The graph with such factors moved."""
        if not any(node.op.slides for node in graph.nodes):
            return graph
        walk = _Walk(graph)
        for node in graph.nodes:
            walk.visit(node)
        return walk.finish() if walk.moved else graph


class _Walk:
    """One walk over a graph; chains are found in what it was, so that uses are known."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.made: dict[Node, Node] = {}
        self.moved = False
        self._kept = of_state_alone(graph)
        self._uses = Counter(operand for node in graph.nodes for operand in node.inputs)
        self._uses.update(graph.roots)
        self._locations, self._names = dict(graph.locations), dict(graph.names)

    def visit(self, node: Node) -> None:
        """Find what becomes of ``node``, whose operands are known."""
        found = None
        if node.op.name == "mul" and node not in self._kept:
            found = self._product(node)
        self.moved = self.moved or found is not None
        made = with_inputs(node, [self.made[n] for n in node.inputs]) if found is None else found
        self.made[node] = made
        if made is not node and made.inputs:
            if node in self._locations:
                self._locations.setdefault(made, self._locations[node])
            if node in self._names:
                self._names.setdefault(made, self._names[node])

    def _product(self, node: Node) -> Node | None:
        """A product as a convolution with scaled taps; None if it is none."""
        for value, factor in (node.inputs, node.inputs[::-1]):
            if value.shape == node.shape and factor in self._kept:
                return self._scaled(value, self.made[factor])
        return None

    def _scaled(self, value: Node, factor: Node) -> Node | None:
        """``value * factor`` with the factor in the taps; None if it cannot go there."""
        if self._uses[value] > 1:
            return None
        if value.op.name in _CHAIN and value.inputs[1] in self._kept:
            inner, more = value.inputs[0], self.made[value.inputs[1]]
            if inner.shape != value.shape:
                return None
            if value.op.name == "mul":
                return self._scaled(inner, emit("mul", more, factor))
            scaled = self._scaled(inner, factor)
            return scaled and emit(value.op, scaled, emit("mul", more, factor))
        conv = value.inputs[0] if value.op.kind is Kind.VIEW else value
        if not conv.op.slides or self._uses[conv] > 1 or conv.inputs[1] not in self._kept:
            return None
        x, w = (self.made[n] for n in conv.inputs)
        return _with_taps(value, conv, (x, w), factor)

    def finish(self) -> Graph:
        """The graph over what was found."""
        updates = [(state, self.made[value]) for state, value in self.graph.updates]
        result = self.graph.with_roots([self.made[n] for n in self.graph.outputs], updates)
        kept = set(result.nodes)
        return replace(
            result,
            locations={n: p for n, p in self._locations.items() if n in kept},
            names={n: s for n, s in self._names.items() if n in kept},
        )


def _with_taps(value: Node, conv: Node, operands: tuple[Node, Node], factor: Node) -> Node | None:
    """``value``, which shows ``conv``, with scaled taps, if ``factor`` is one a channel."""
    x, w = operands
    if not w.dtype.is_floating_point:
        return None
    groups, filters = w.shape[:FILTER]
    shape = (conv.shape[0], groups * filters, *conv.shape[FILTER + 1 :])
    if value.shape not in (shape, conv.shape) or not all(isinstance(d, int) for d in w.shape):
        return None
    aligned = (*(1,) * (len(value.shape) - len(factor.shape)), *factor.shape)
    channels = range(1, len(value.shape) - len(conv.shape) + FILTER + 1)
    if len(aligned) > len(value.shape) or any(
        d != 1 for axis, d in enumerate(aligned) if axis not in channels
    ):
        return None
    count = prod(aligned[axis] for axis in channels)
    if count not in (1, groups * filters):
        return None
    ones = (1,) * (len(w.shape) - FILTER)
    known = (groups, filters) if count > 1 else (1, 1)
    scaled = emit("mul", w, emit("reshape", factor, shape=(*known, *ones)))
    hits["scaled taps"] += 1
    made = emit(conv.op, x, scaled, **conv.attrs)
    return made if value is conv else emit("reshape", made, shape=value.shape)
