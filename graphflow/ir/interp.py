"""The interpreter: what a graph means, said with each operation's NumPy reference.

It is the specification that every pass and backend is tested against.  With
``precision="f64"`` floating-point numbers of every type are computed in double,
which makes it the oracle for kernels in lower precision.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from graphflow.errors import GraphError
from graphflow.ir.binding import Sizes, bind_sizes, described
from graphflow.ir.dims import SymDim, evaluate_dim
from graphflow.ir.graph import Graph
from graphflow.ir.node import Node
from graphflow.ir.op import Kind
from graphflow.ir.types import DType, TensorType, TupleType, Type, complex128, float64
from graphflow.records import dataclass

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Interpretation:
    """What running a graph gives: its outputs, and the state after the step."""

    outputs: tuple[Array, ...]
    state: Mapping[str, Array]


def interpret(
    graph: Graph,
    args: Sequence[Any],
    state: Mapping[str, Any] | None = None,
    precision: str | None = None,
) -> Interpretation:
    """Run ``graph`` on ``args`` (one an input) and ``state`` (arrays by name).

    Symbolic dimensions take their sizes from the arguments.  ``precision="f64"``
    computes every floating-point type in double.  Raises Shape/DTypeError naming
    the input, GraphError when an argument or state is missing, and whatever the
    operations raise (an index out of range).
    """
    if precision in (None, "f64"):
        return Evaluation(graph, precision == "f64").run(args, state or {})
    raise GraphError(f"precision must be None or 'f64', not {precision!r}")


class Evaluation:
    """Values of nodes over the leaves of one graph; with ``double``, floats in double."""

    def __init__(self, graph: Graph, double: bool) -> None:
        self.graph, self.double = graph, double
        self.sizes: Sizes = {}
        self.values: dict[Node, Any] = {}

    def run(self, args: Sequence[Any], state: Mapping[str, Any]) -> Interpretation:
        """Bind, evaluate in topological order, collect."""
        self.bind(args, state)
        graph = self.graph
        pending = {node: len(users) for node, users in graph.users.items()}
        kept = {*graph.roots, *graph.state}
        with np.errstate(all="ignore"):
            for node in graph.nodes:
                if node not in self.values:
                    self.values[node] = self.evaluate(node)
                for operand in {*node.inputs}:
                    pending[operand] -= 1
                    if not pending[operand] and operand not in kept:
                        del self.values[operand]
        after = {n.attrs["name"]: self.values[n] for n in graph.state}
        after |= {cell.attrs["name"]: self.values[value] for cell, value in graph.updates}
        return Interpretation(tuple(self.values[n] for n in graph.outputs), after)

    def value(self, node: Node) -> Any:
        """The value of any node over the leaves that have values, computed once."""
        stack = [node]
        with np.errstate(all="ignore"):
            while stack:
                top = stack[-1]
                waiting = [n for n in top.inputs if n not in self.values]
                if waiting:
                    stack += waiting
                    continue
                stack.pop()
                if top not in self.values:
                    self.values[top] = self.evaluate(top)
        return self.values[node]

    def bind(self, args: Sequence[Any], state: Mapping[str, Any]) -> None:
        """Give inputs and state their arrays, and symbols their sizes."""
        graph, what = self.graph, f"graph {self.graph.name!r}"
        if len(args) != len(graph.inputs):
            names = ", ".join(n.attrs["name"] for n in graph.inputs)
            raise GraphError(
                f"{what} takes {len(graph.inputs)} arguments ({names}), not {len(args)}"
            )
        absent = [n.attrs["name"] for n in graph.state if n.attrs["name"] not in state]
        if absent:
            raise GraphError(f"{what} needs a value for state {', '.join(absent)}")
        cells = [(n, state[n.attrs["name"]]) for n in graph.state]
        bound = [(n, np.asarray(value)) for n, value in (*zip(graph.inputs, args), *cells)]
        self.sizes = bind_sizes([(n, a, self.dtype(n.dtype)) for n, a in bound], self.sizes)
        self.values = {n: self.widened(a) for n, a in bound}

    def evaluate(self, node: Node) -> Any:
        """The value of one node, checked against its type."""
        if node.op.kind is Kind.LEAF and "value" not in node.attrs:
            raise GraphError(f"{described(node)} is not declared by graph {self.graph.name!r}")
        attrs = {name: self.attribute(value) for name, value in node.attrs.items()}
        value = node.op.reference(*[self.values[n] for n in node.inputs], **attrs)
        return self.checked(node, value, node.type)

    def checked(self, node: Node, value: Any, type: Type) -> Any:
        """``value`` as array(s) of ``type``; a reference that yields another is wrong."""
        if isinstance(type, TupleType):
            return tuple(self.checked(node, v, t) for v, t in zip(value, type.items, strict=True))
        array = self.widened(np.asarray(value))
        if (array.dtype, array.shape) != (self.dtype(type.dtype).numpy, self.shape(type)):
            raise GraphError(
                f"the reference of {node.op.name} gave {array.dtype}{list(array.shape)} "
                f"where its type rule says {type}"
            )
        return array

    def attribute(self, value: Any) -> Any:
        """An attribute with symbols as sizes, and regions as functions."""
        if isinstance(value, tuple):
            return tuple(self.attribute(item) for item in value)
        if isinstance(value, SymDim):
            return evaluate_dim(value, self.sizes)
        if isinstance(value, DType):
            return self.dtype(value)
        return _Region(value, self.double, self.sizes) if isinstance(value, Graph) else value

    def dtype(self, dtype: DType) -> DType:
        """The dtype that values of ``dtype`` are computed in."""
        if not self.double or not (dtype.is_floating_point or dtype.is_complex):
            return dtype
        return complex128 if dtype.is_complex else float64

    def widened(self, array: Array) -> Array:
        """``array`` in the dtype it is computed in."""
        if not self.double or array.dtype.kind in "biu":
            return array
        return array.astype(np.complex128 if array.dtype.kind == "c" else np.float64, copy=False)

    def shape(self, type: TensorType) -> tuple[int, ...]:
        """The shape of ``type`` under the sizes of this run."""
        return tuple(evaluate_dim(dim, self.sizes) for dim in type.shape)


@dataclass(frozen=True, slots=True)
class _Region:
    """A closed graph as a function of its inputs, in the precision and sizes of the run."""

    graph: Graph
    double: bool
    sizes: Sizes

    def __call__(self, *args: Array) -> tuple[Array, ...]:
        run = Evaluation(self.graph, self.double)
        run.sizes.update(self.sizes)
        return run.run(args, {}).outputs
