"""Turn products round whose transpose is all that anybody reads.

The gradient of a weight stored as ``[out, in]`` comes out of differentiation
as ``permute(matmul(xᵀ, y))``.  ``(A B)ᵀ = Bᵀ Aᵀ``, and operands may lie in
memory as they like, so the product is computed the other way round and the
weight's update can be its epilogue.
"""

from __future__ import annotations

from graphflow.ir.build import emit
from graphflow.ir.graph import Graph, Location
from graphflow.ir.node import Node, with_inputs
from graphflow.ir.op import Kind
from graphflow.passes.dataflow import choice_of_axes, is_alias, view_pieces


def turn_products(graph: Graph) -> Graph:
    """``graph`` with every contraction that is read transposed only turned round."""
    roots = frozenset(graph.roots)
    single = ((n, graph.users[n]) for n in graph.nodes if n not in roots)
    turned = {u[0]: n for n, u in single if len(u) == 1 and _is_turned(n, u[0])}
    if not turned:
        return graph
    new: dict[Node, Node] = {}
    locations: dict[Node, Location] = {}
    for node in graph.nodes:
        product = turned.get(node)
        if product is not None:
            a, b = (new[n] for n in product.inputs)
            made = emit(product.op, _transposed(b), _transposed(a), **product.attrs)
        else:
            made = with_inputs(node, [new[n] for n in node.inputs])
        new[node] = made
        place = graph.locations.get(node) or (product and graph.locations.get(product))
        if place:
            locations[made] = place
    updates = [(state, new[value]) for state, value in graph.updates]
    return graph.with_roots([new[n] for n in graph.outputs], updates, locations)


def _is_turned(node: Node, user: Node) -> bool:
    """Whether ``user`` transposes contraction ``node`` (attributes speak of axes by place)."""
    return node.op.kind is Kind.CONTRACTION and not node.attrs and _transposes(user)


def _transposes(view: Node) -> bool:
    """True for a view that swaps the last two axes of its operand and no others."""
    if not is_alias(view):
        return False
    before = view.inputs[0].shape
    swap = _swap(len(before))
    if len(before) < 2 or view.shape != tuple(before[axis] for axis in swap):
        return False
    axes = choice_of_axes(view, view_pieces(view))
    if axes is None:
        return False
    return all(a == s or view.shape[k] == 1 for k, (a, s) in enumerate(zip(axes, swap)))


def _swap(rank: int) -> tuple[int, ...]:
    return (*range(rank - 2), rank - 1, rank - 2)


def _transposed(node: Node) -> Node:
    if _transposes(node):
        return node.inputs[0]
    return emit("permute", node, axes=_swap(len(node.shape)))
