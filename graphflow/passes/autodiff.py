"""Reverse-mode differentiation, graph to graph.

The rules are the operations' own (``OpDef.vjp``); the result is an ordinary
graph that can be printed, verified and differentiated again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from graphflow.errors import GraphError
from graphflow.ir.build import NODES, splat
from graphflow.ir.cotangent import carries_gradient, operand_cotangent
from graphflow.ir.graph import Graph, Location
from graphflow.ir.node import Node
from graphflow.ir.op import NON_DIFFERENTIABLE, Application, Kind
from graphflow.ir.types import TensorType, TupleType
from graphflow.records import replace


def differentiate(graph: Graph, wrt: str | int | Sequence[str | int], of: int | str = 0) -> Graph:
    """``graph`` that also returns the gradients of its scalar output ``of``.

    ``wrt`` names inputs or state, or gives positions of inputs; the gradients
    follow the graph's outputs in that order, each of its leaf's type.  A leaf
    that the output does not depend on has a gradient of zeros::

        %x: f32[] = input(name="x")           %x: f32[] = input(name="x")
        %0: f32[] = sin(%x)            →      %0: f32[] = sin(%x)
        return %0                             %1: f32[] = cos(%x)
                                              return %0, %1

    Raises :class:`GraphError` for an unknown name, an output that is no
    floating-point scalar, or an operation that cannot be differentiated.
    """
    leaves = [_leaf(graph, w) for w in ([wrt] if isinstance(wrt, (str, int)) else wrt)]
    output = _output(graph, of)
    seed = splat(1, output.tensor_type)
    sweep = Sweep(graph.nodes, leaves, graph.locations)
    sweep.seed(output, seed)
    sweep.run()
    gradients = [sweep.result(leaf) for leaf in leaves]
    names = dict(graph.names)
    for leaf, gradient in zip(leaves, gradients):
        if gradient.inputs and gradient not in graph.users:
            names.setdefault(gradient, f"grad.{leaf.attrs['name']}")
    result = replace(
        graph,
        outputs=(*graph.outputs, *gradients),
        locations=sweep.locations,
        names=names,
    )
    if not sweep.instead:
        return result
    from graphflow.passes.autodiff_control import compute_instead

    return compute_instead(result, sweep.instead)


def _leaf(graph: Graph, which: str | int) -> Node:
    if isinstance(which, int):
        if not -len(graph.inputs) <= which < len(graph.inputs):
            raise GraphError(f"there is no input {which}; the graph has {len(graph.inputs)}")
        found = [graph.inputs[which]]
    else:
        found = [n for n in (*graph.inputs, *graph.state) if n.attrs["name"] == which]
    if len(found) != 1:
        known = ", ".join(repr(n.attrs["name"]) for n in (*graph.inputs, *graph.state))
        problem = "is no input or state" if not found else "is both an input and a state"
        raise GraphError(f"{which!r} {problem} of graph {graph.name!r}, which has {known}")
    if not carries_gradient(found[0]):
        raise GraphError(f"{which!r} has type {found[0].type}; only floats have gradients")
    return found[0]


def _output(graph: Graph, of: int | str) -> Node:
    if isinstance(of, str):
        named = [n for n in graph.outputs if graph.names.get(n) == of]
        if not named:
            raise GraphError(f"no output of graph {graph.name!r} is called {of!r}")
        output = named[0]
    elif -len(graph.outputs) <= of < len(graph.outputs):
        output = graph.outputs[of]
    else:
        raise GraphError(f"there is no output {of}; the graph has {len(graph.outputs)}")
    if output.tensor_type.numel != 1 or not output.dtype.is_floating_point:
        raise GraphError(
            f"output {of} has type {output.type}; only a floating-point scalar can be "
            "differentiated: reduce it first, with a sum for instance"
        )
    return output


class Sweep:
    """Cotangents on their way from results to leaves, over nodes in topological order."""

    def __init__(
        self,
        nodes: Sequence[Node],
        wrt: Iterable[Node],
        locations: Mapping[Node, Location] | None = None,
    ) -> None:
        self.nodes = nodes
        self.locations = dict(locations or {})
        self.cotangents: dict[Node, Node] = {}
        self.parts: dict[Node, dict[int, Node]] = {}
        self.instead: dict[Node, Node] = {}
        """Nodes to replace by others that compute the same and more."""
        self._known = set(nodes)
        self.active = set(wrt)  # what the leaves reach: nothing else needs a cotangent
        for node in nodes:
            if any(n in self.active for n in node.inputs):
                self.active.add(node)

    def seed(self, node: Node, cotangent: Node) -> None:
        """Add ``cotangent`` to what has arrived at ``node``."""
        held = self.cotangents.get(node)
        self.cotangents[node] = cotangent if held is None else NODES.add(held, cotangent)

    def run(self) -> None:
        """Visit every node that the seeds reach, users before operands."""
        for node in reversed(self.nodes):
            if node not in self.active or not node.inputs:
                continue
            if isinstance(node.type, TensorType):
                cotangent = self.cotangents.get(node)
                if cotangent is not None and carries_gradient(node):
                    self._through(node, cotangent)
            elif node in self.parts:
                self._through_regions(node)

    def result(self, leaf: Node) -> Node:
        """The cotangent that arrived at ``leaf``; zeros if none did."""
        found = self.cotangents.get(leaf)
        return splat(0, leaf.tensor_type) if found is None else found

    def _through(self, node: Node, cotangent: Node) -> None:
        op = node.op
        if op.vjp is NON_DIFFERENTIABLE:
            return
        source = node.inputs[0]
        if not isinstance(source.type, TensorType):  # one result taken out of several
            parts = self.parts.setdefault(source, {})
            index = node.attrs["index"]
            held = parts.get(index)
            parts[index] = cotangent if held is None else NODES.add(held, cotangent)
            return
        application = Application(node.inputs, node, node.attrs)
        for position, operand in enumerate(node.inputs):
            if operand in self.active and carries_gradient(operand):
                found = operand_cotangent(NODES, op, application, cotangent, position)
                if found is not None:
                    self._place(found, node)
                    self.seed(operand, found)

    def _through_regions(self, node: Node) -> None:
        from graphflow.passes.autodiff_control import control_gradient

        if node.op.kind is Kind.OPAQUE:
            self._through_several(node)
            return
        wanted = [n in self.active and carries_gradient(n) for n in node.inputs]
        found = control_gradient(node, self.parts[node], wanted)
        if found.instead is not None:
            self.instead[node] = found.instead
        for operand, cotangent in zip(node.inputs, found.cotangents):
            if cotangent is not None:
                self._place(cotangent, node)
                self.seed(operand, cotangent)

    def _through_several(self, node: Node) -> None:
        """Through a host operation with several results."""
        assert isinstance(node.type, TupleType)
        outs = tuple(NODES.get(node, index=i) for i in range(len(node.type.items)))
        cts = tuple(self.parts[node].get(i) for i in range(len(outs)))
        application = Application(node.inputs, outs, node.attrs)
        for position, operand in enumerate(node.inputs):
            if operand in self.active and carries_gradient(operand):
                found = operand_cotangent(NODES, node.op, application, cts, position)
                if found is not None:
                    self._place(found, node)
                    self.seed(operand, found)

    def _place(self, made: Node, source: Node) -> None:
        """Give what was emitted for ``source`` the place of ``source``."""
        place = self.locations.get(source)
        stack = [made]
        while stack:
            node = stack.pop()
            if node in self._known:
                continue
            self._known.add(node)
            if place is not None and node.inputs:
                self.locations.setdefault(node, place)
            stack.extend(node.inputs)
