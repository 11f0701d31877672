"""Zeros around what a product reads, which a library may put there by itself.

Where products alone read a padded operand, through views or not, each of them is one unit with a
padded copy of its own: whoever lowers it makes that first, and knows what it is a copy of.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from graphflow.codegen.layout import Layout, contiguous, view_of
from graphflow.ir.build import input_node
from graphflow.ir.graph import Graph
from graphflow.ir.node import Node, with_inputs
from graphflow.ir.op import Kind
from graphflow.passes.dataflow import is_alias, view_pieces

Chain: TypeAlias = tuple[Node, ...]
"""A node that pads, and the views of it up to the operand of a product."""


def padded_operands(graph: Graph) -> dict[Node, dict[int, Chain]]:
    """The operands of products in ``graph``, which has been fused, that are padded for products
    alone, by product and position."""
    found: dict[Node, dict[int, Chain]] = {}
    roots = frozenset(graph.roots)
    for node in graph.nodes:
        if low_of(node) is not None:
            for product, position, chain in _users(graph, roots, node) or ():
                found.setdefault(product, {})[position] = chain
    return found


def _users(
    graph: Graph, roots: frozenset[Node], padded: Node
) -> list[tuple[Node, int, Chain]] | None:
    """The operands that ``padded`` becomes, through views or not; None if it is more."""
    found = []
    stack: list[tuple[Chain, Layout]] = [((padded,), contiguous(0, padded.tensor_type))]
    while stack:
        chain, layout = stack.pop()
        last = chain[-1]
        if last in roots:
            return None
        for user in dict.fromkeys(graph.users[last]):
            if is_alias(user):
                shown = view_of(user, layout)
                if shown is None:
                    return None
                stack.append(((*chain, user), shown))
                continue
            places = [n for n, x in enumerate(user.inputs) if x is last]
            if len(places) != 1 or places[0] not in _multiplied(user):
                return None
            found.append((user, places[0], chain))
    return found


def _multiplied(node: Node) -> Sequence[int]:
    """The positions of operands that do nothing but be multiplied."""
    if node.op.kind is Kind.CONTRACTION:
        return range(len(node.inputs)) if node.op.tiles is None else ()
    if node.attrs.get("kind") != "contraction":
        return ()
    body: Graph = node.attrs["body"]
    product = next(n for n in body.nodes if n.op.kind is Kind.CONTRACTION)
    return [
        n for n, x in enumerate(body.inputs)
        if product.op.tiles is None and body.users[x] == (product,)
        and product.inputs.count(x) == 1
    ]  # fmt: skip


def low_of(node: Node) -> tuple[int, ...] | None:
    """How many zeros ``node`` puts before its operand along each axis; None if it does not do
    that."""
    fill = node.op.fill
    if node.op.kind is not Kind.VIEW or len(node.inputs) != 1 or fill is None:
        return None
    pieces = view_pieces(node)
    if len(pieces) != 1 or not node.dtype.is_floating_point or fill(node.attrs, node.dtype) != 0:
        return None
    low = []
    for axis, part in enumerate(pieces[0].index):
        if dict(part.terms) != {f"i{axis}": 1} or not isinstance(part.offset, int):
            return None
        low.append(-part.offset)
    return tuple(low)


def with_padding(body: Graph, chains: Mapping[int, Chain]) -> Graph:
    """``body`` with the operands at some positions padded inside of it."""
    new: dict[Node, Node] = {}
    inputs: list[Node] = []
    for position, node in enumerate(body.inputs):
        new[node] = node
        if position in chains:
            source = chains[position][0].inputs[0]
            new[node] = input_node(f"x{position}", source.tensor_type)
        inputs.append(new[node])
        for step in chains.get(position, ()):
            new[node] = with_inputs(step, [new[node]])
    for node in body.nodes:
        if node not in new:
            new[node] = with_inputs(node, [new[n] for n in node.inputs])
    return Graph(tuple(inputs), tuple(new[n] for n in body.outputs), name="body")
