"""Sums of squared differences in the pass over memory that an earlier sum takes anyway."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass
from math import inf
from typing import ClassVar

from graphflow.ir.build import NODES, constant, emit
from graphflow.ir.dims import Dim, SymDim, dim_product
from graphflow.ir.graph import Graph
from graphflow.ir.node import Node, with_inputs
from graphflow.passes.base import Pass
from graphflow.passes.in_regions import in_regions
from graphflow.passes.rewrite import hits
from graphflow.passes.spaces import kept_shape
from graphflow.records import replace

FAR = 4.0
"""So many times the result may be what is subtracted for it: a sum's rounding errors are then at
most nine times those of a sum of squared differences."""
LEAST = 32
"""With fewer elements a sum there is little to read."""


@dataclass(frozen=True)
class OnePass(Pass):
    """Sum up squares where the sum that a mean is made of is taken::

        %s = reduce_sum(%x)                 %s = reduce_sum(%x)
        %m = mul(%s, 1 / n)                 %q = reduce_sum(mul(%x, %x))
        %d = sub(%x, %m)               →    %o = %q - %s * %s / n
        %v = reduce_sum(mul(%d, %d))        %g = %s * %s / n <= 4 * %o < inf
                                            %d = sub(%x, where(%g, 0, %m))
                                            %v = where(%g, %o, reduce_sum(mul(%d, %d)))

    Where the sum on the left would be much more exact, or one has overflowed, it is chosen;
    kernels for GPUs pass over memory for it there only (``codegen/passes_plan.py``).  A processor's
    kernels for columns would do so for all of them.
    """

    name: ClassVar[str] = "one_pass"

    def run(self, graph: Graph) -> Graph:
        """The graph with such sums, in regions too."""
        return in_regions(graph, _outside)


def _outside(graph: Graph) -> Graph:
    there = set(graph.nodes)
    found = {node: parts for node in graph.nodes if (parts := _parts(node, there)) is not None}
    if not found:
        return graph
    hits["one pass"] += len(found)
    final: dict[Node, Node] = {}
    locations = dict(graph.locations)
    for node in graph.nodes:
        parts = found.get(node)
        if parts is None:
            made = with_inputs(node, [final[n] for n in node.inputs])
        else:
            x, mean, total, count = parts
            made = _chosen(node, final[x], final[mean], final[total], count)
        final[node] = made
        if node in locations:
            locations.setdefault(made, locations[node])
    updates = [(state, final[value]) for state, value in graph.updates]
    result = graph.with_roots([final[n] for n in graph.outputs], updates)
    nodes = set(result.nodes)
    return replace(result, locations={n: p for n, p in locations.items() if n in nodes})


def _parts(node: Node, there: Set[Node]) -> tuple[Node, Node, Node, Dim] | None:
    """Elements, mean, sum and number of them, if ``node`` is a sum of squared differences."""
    if node.op.name != "reduce_sum" or not node.dtype.is_floating_point or node.dtype.itemsize < 4:
        return None
    square, axes = node.inputs[0], node.attrs["axes"]
    if square.op.name != "mul" or square.inputs[0] is not square.inputs[1]:
        return None
    difference = square.inputs[0]
    if difference.op.name != "sub":
        return None
    x, mean = difference.inputs
    count = dim_product(tuple(square.shape[axis] for axis in axes))
    aligned = (*(1,) * (len(square.shape) - len(mean.shape)), *mean.shape)
    if x.shape != square.shape or aligned != kept_shape(x.shape, axes):
        return None
    if isinstance(count, int) and count < LEAST:
        return None
    total = emit(node.op, x, **node.attrs)
    if total not in there or emit(node.op, emit("mul", x, x), **node.attrs) in there:
        return None
    return (x, mean, total, count) if _is_mean(mean, total, count) else None


def _is_mean(mean: Node, total: Node, count: Dim) -> bool:
    """Whether ``mean`` shows ``total``, a sum of so many, divided by their number."""
    mean = _shown(mean)
    if mean.op.name == "div":
        return _shown(mean.inputs[0]) is total and _is_number(mean.inputs[1], count)
    if mean.op.name != "mul" or isinstance(count, SymDim):
        return False
    pairs = (mean.inputs, mean.inputs[::-1])
    return any(_shown(a) is total and _is_number(b, 1 / count) for a, b in pairs)


def _shown(node: Node) -> Node:
    """What views of the same elements in order, repeated or not, are views of."""
    while node.op.name in ("reshape", "expand"):
        node = node.inputs[0]
    return node


def _is_number(node: Node, number: Dim | float) -> bool:
    """Whether ``node`` is this number, as its dtype has it."""
    node = _shown(node)
    if node.op.name == "extent":
        return bool(node.attrs["dim"] == number)
    if node.op.name != "constant" or node.shape or isinstance(number, SymDim):
        return False
    value = node.attrs["value"].array
    return bool(value == value.dtype.type(number))


def _chosen(node: Node, x: Node, mean: Node, total: Node, count: Dim) -> Node:
    """The sum of squared differences from those of the elements, where it is good enough; else as
    it was.  That one's mean waits for the choice, so no kernel sums up for both."""
    b = NODES
    if isinstance(count, SymDim):
        number = b.extent(dim=count, dtype=total.dtype)
    else:
        number = constant(float(count), total.dtype)
    square = b.div(b.mul(total, total), number)
    once = b.sub(emit(node.op, b.mul(x, x), **node.attrs), square)
    good = b.logical_and(b.le(square, b.mul(once, FAR)), b.lt(once, inf))
    zero = constant(0.0, mean.dtype)
    difference = b.sub(x, b.where(b.reshape(good, shape=mean.shape), zero, mean))
    twice = emit(node.op, b.mul(difference, difference), **node.attrs)
    made: Node = b.where(good, once, twice)
    return made
