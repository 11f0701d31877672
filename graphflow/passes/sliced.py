"""What is read in parts that interleave is computed part by part, by the kernel that reads them.

Max pooling compares the four elements of each window of ``relu(x + b)``: four slices, each
every other element along two axes.  Over the whole image, bias and relu would be a kernel of
their own (or a product's epilogue) that stores as much as it reads; over the slices they are part
of the kernel that compares.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import ClassVar

from graphflow.ir.build import emit
from graphflow.ir.graph import Graph
from graphflow.ir.node import Node, with_inputs
from graphflow.ir.op import Kind
from graphflow.passes.base import Pass
from graphflow.passes.dataflow import is_alias, view_pieces
from graphflow.passes.in_regions import in_regions
from graphflow.passes.rewrite import hits

MOST_SLICES = 16


@dataclass(frozen=True)
class Sliced(Pass):
    """Compute elementwise what is only read in slices of one element along some axes::

        %1: f32[8,2] = relu(%x)              %1: f32[8,1] = slice(%x, …, limits=(8, 1))
        %2: f32[8,1] = slice(%1, …)     →    %2: f32[8,1] = relu(%1)
        %3: f32[8,1] = slice(%1, …)          %3: f32[8,1] = slice(%x, …, starts=(0, 1))
        %4: f32[8,1] = maximum(%2, %3)       %4: f32[8,1] = relu(%3) …

    Slices must not overlap, so nothing is computed twice, and be read element by element.
    """

    name: ClassVar[str] = "sliced"

    def run(self, graph: Graph) -> Graph:
        """The graph with such values made of slices."""
        return in_regions(graph, _rewritten)


def _rewritten(graph: Graph) -> Graph:
    found = _read_in_slices(graph)
    if not found:
        return graph
    made = _Parts(graph, found)
    for node in graph.nodes:
        made.visit(node)
    hits["elementwise after slices"] += len(found)
    updates = [(state, made.new[value]) for state, value in graph.updates]
    outputs = [made.new[n] for n in graph.outputs]
    locations = {made.new[n]: place for n, place in graph.locations.items() if n in made.new}
    return graph.with_roots(outputs, updates, locations)


def _read_in_slices(graph: Graph) -> dict[Node, tuple[Node, ...]]:
    """By elementwise value: the slices in which it is read, itself or by way of others."""
    found: dict[Node, tuple[Node, ...]] = {}
    if not any(map(_is_slice, graph.nodes)):
        return found
    roots = frozenset(graph.roots)
    for node in reversed(graph.nodes):
        if node.op.kind is not Kind.ELEMENTWISE or node in roots:
            continue
        slices = _slices_of(graph, node, found, roots)
        if slices and _apart(slices):
            found[node] = slices
    return found


def _slices_of(
    graph: Graph, node: Node, found: Mapping[Node, tuple[Node, ...]], roots: frozenset[Node]
) -> tuple[Node, ...]:
    """All slices in which ``node`` is read; none if it is read in another way."""
    slices: dict[Node, None] = {}
    for user in graph.users[node]:
        through = graph.users[user] if _is_reshape(user) and user not in roots else (user,)
        if user in found and user.shape == node.shape:
            slices.update(dict.fromkeys(found[user]))
        elif through and all(_is_slice(n) and _is_compared(graph, n, roots) for n in through):
            slices.update(dict.fromkeys(through))
        else:
            return ()
    return tuple(slices) if len({n.inputs[0].shape for n in slices}) == 1 else ()


def _is_reshape(node: Node) -> bool:
    return is_alias(node) and not view_pieces(node) and node.dtype is node.inputs[0].dtype


def _is_slice(node: Node) -> bool:
    """Whether ``node`` shows one element along some axes, and all of the others."""
    if node.op.kind is not Kind.VIEW or not node.inputs or not is_alias(node):
        return False
    return bool(view_pieces(node)) and _start(node) is not None


def _start(node: Node) -> tuple[int, ...] | None:
    """Where slice ``node`` begins along axes of which it shows one element; -1: shows all."""
    found, shape = [], node.inputs[0].shape
    if len(shape) != len(node.shape):
        return None
    for axis, index in enumerate(view_pieces(node)[0].index):
        if node.shape[axis] == 1 != shape[axis] and isinstance(index.offset, int):
            found.append(index.offset)
        elif node.shape[axis] != shape[axis] or index.terms != ((f"i{axis}", 1),) or index.offset:
            return None
        else:
            found.append(-1)
    return tuple(found) if any(place >= 0 for place in found) else None


def _is_compared(graph: Graph, node: Node, roots: frozenset[Node]) -> bool:
    """Whether a slice is read element by element, by way of a view of all of it perhaps."""
    if node in roots:
        return False
    for user in graph.users[node]:
        same = is_alias(user) and user.tensor_type.numel == node.tensor_type.numel
        readers = graph.users[user] if same else (user,)
        if user in roots or any(n.op.kind is not Kind.ELEMENTWISE for n in readers):
            return False
    return True


def _view(graph: Graph, node: Node) -> Node:
    """The view by which alone a slice is read, or the slice itself."""
    users = graph.users[node]
    return users[0] if len(users) == 1 and is_alias(users[0]) else node


def _apart(slices: Sequence[Node]) -> bool:
    """Whether slices show several parts that have no element in common."""
    parts = {start for n in slices if (start := _start(n)) is not None}
    return 1 < len(parts) <= MOST_SLICES and all(
        any(a != b and a >= 0 <= b for a, b in zip(one, two)) for one, two in combinations(parts, 2)
    )


class _Parts:
    """One walk over a graph in which some values are made of slices."""

    def __init__(self, graph: Graph, found: Mapping[Node, tuple[Node, ...]]) -> None:
        self.graph, self.found = graph, found
        self.new: dict[Node, Node] = {}
        self._made: dict[tuple[Node, Node], Node] = {}
        self._slices: dict[Node, tuple[Node, Node]] = {}
        for value in found:
            for user in graph.users[value]:
                for part in graph.users[user] if _is_reshape(user) else (user,):
                    if part in found[value]:
                        self._slices[part] = value, _view(graph, part)

    def visit(self, node: Node) -> None:
        """Find what becomes of ``node``, whose operands have been visited."""
        if node in self.found or (_is_reshape(node) and node.inputs[0] in self.found):
            return
        source = node.inputs[0] if len(node.inputs) == 1 else None
        if source is not None and source in self._slices:
            value, view = self._slices[source]
            if view is node:
                self.new[node] = self._part(value, source, view)
                return
        if node not in self._slices:
            self.new[node] = with_inputs(node, [self.new[n] for n in node.inputs])
        elif self._slices[node][1] is node:
            self.new[node] = self._part(self._slices[node][0], node, node)

    def _part(self, value: Node, part: Node, view: Node) -> Node:
        """What slice ``part``, shown by ``view``, shows of ``value``."""
        stack = [value]
        while stack:
            top = stack[-1]
            waiting = [n for n in top.inputs if n in self.found and (n, part) not in self._made]
            if (top, part) not in self._made and waiting:
                stack.extend(waiting)
                continue
            stack.pop()
            if (top, part) not in self._made:
                operands = [self._operand(n, top, part, view) for n in top.inputs]
                self._made[top, part] = emit(top.op, *operands, **top.attrs)
        return self._made[value, part]

    def _operand(self, operand: Node, value: Node, part: Node, view: Node) -> Node:
        if operand in self.found:
            return self._made[operand, part]
        whole = self.new[operand]
        if whole.tensor_type.numel == 1 and len(whole.shape) <= len(view.shape):
            return whole
        if whole.shape != value.shape:
            whole = emit("expand", whole, shape=value.shape)
        if whole.shape != part.inputs[0].shape:
            whole = emit("reshape", whole, shape=part.inputs[0].shape)
        shown = emit(part.op, whole, **part.attrs)
        return shown if view is part else emit(view.op, shown, **view.attrs)
