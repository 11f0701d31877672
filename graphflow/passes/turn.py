"""Turn products round whose transpose is all that anybody reads.

The gradient of a weight stored as ``[out, in]`` comes out of differentiation
as ``permute(matmul(xᵀ, y))``.  ``(A B)ᵀ = Bᵀ Aᵀ``, and operands may lie in
memory as they like, so the product is computed the other way round and the
weight's update can be its epilogue.  The gradient of attention's keys is read with
its heads side by side: permuted further, but its rows are read along as well.
"""

from __future__ import annotations

from collections.abc import Sequence

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
            made = _permuted(made, _axes_of(node))
        else:
            made = with_inputs(node, [new[n] for n in node.inputs])
        new[node] = made
        place = graph.locations.get(node) or (product and graph.locations.get(product))
        if place:
            locations[made] = place
    updates = [(state, new[value]) for state, value in graph.updates]
    return graph.with_roots([new[n] for n in graph.outputs], updates, locations)


def _is_turned(node: Node, user: Node) -> bool:
    """Whether ``user`` reads contraction ``node`` along its rows (attributes speak of axes by
    place)."""
    if node.op.kind is not Kind.CONTRACTION or node.attrs:
        return False
    rank = len(node.shape)
    axes = _axes_of(user)
    return rank > 1 and len(axes) == rank and axes[-1] == rank - 2


def _axes_of(view: Node) -> Sequence[int]:
    """The axes of its operand that a view shows in another order, all of them; or none."""
    if not is_alias(view):
        return ()
    axes = choice_of_axes(view, view_pieces(view))
    before = view.inputs[0].shape
    if axes is None or len(axes) != len(before):
        return ()
    single = [axis for axis in range(len(before)) if axis not in axes]
    if any(before[axis] != 1 for axis in single):
        return ()
    rest = iter(single)
    axes = tuple(axis if axis >= 0 else next(rest) for axis in axes)
    return axes if view.shape == tuple(before[axis] for axis in axes) else ()


def _transposes(view: Node) -> bool:
    """True for a view that swaps the last two axes of its operand and no others."""
    axes = _axes_of(view)
    return len(axes) > 1 and tuple(axes) == _swap(len(axes))


def _permuted(node: Node, axes: Sequence[int]) -> Node:
    """A turned product as the view with ``axes`` of the product showed it."""
    swap = _swap(len(axes))
    order = tuple(swap[axis] for axis in axes)
    return node if order == (*range(len(axes)),) else emit("permute", node, axes=order)


def _swap(rank: int) -> tuple[int, ...]:
    return (*range(rank - 2), rank - 1, rank - 2)


def _transposed(node: Node) -> Node:
    if _transposes(node):
        return node.inputs[0]
    return emit("permute", node, axes=_swap(len(node.shape)))
