"""What a check starts from: a graph, copies of its inputs and state, and its values in double."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from graphflow.capture import Capture, captured_memory
from graphflow.cell import Cell
from graphflow.comparison import on_host
from graphflow.errors import GraphError, GraphFlowError
from graphflow.functions.creation import as_tensor
from graphflow.ir.graph import Graph
from graphflow.ir.interp import Evaluation
from graphflow.ir.node import Node
from graphflow.ir.types import TensorType
from graphflow.tensor import Tensor
from graphflow.trace import ScalarSource

Array = np.ndarray[Any, Any]


class Setting:
    """One step of one graph: every array it starts from, copied, so that nothing is changed."""

    def __init__(
        self, graph: Graph, inputs: Sequence[Any], cells: Sequence[Array],
        scalars: Sequence[ScalarSource] = (), numbers: Sequence[int] = (),
    ) -> None:  # fmt: skip
        self.graph, self.scalars, self.numbers = graph, tuple(scalars), tuple(numbers)
        self.inputs = [on_host(value) for value in inputs]
        self.state = [on_host(value) for value in cells]

    @classmethod
    def of_capture(cls, capture: Capture, leaves: Sequence[Any]) -> Setting:
        """What a traced function starts from when it is called with ``leaves``."""
        held = [cell.value for cell in capture.cells]
        for leaf, position in capture.mutable:
            held[position] = _array(leaves[leaf])
        for found in capture.found:
            held[found.position] = _array(found.now())
        inputs = [_array(leaves[i]) for i in capture.leaves]
        return cls(capture.graph, inputs, held, capture.scalars, capture.numbers)

    @classmethod
    def of_graph(cls, graph: Graph, args: Sequence[Any]) -> Setting:
        """What a graph starts from: the tensors it captured, and ``args``."""
        captured = captured_memory(graph)
        if captured is not None and len(args) == len(captured.leaves):
            held = [cell.value for cell in captured.cells]
            given = list(map(_array, args))
            return cls(graph, given, held, captured.scalars, captured.numbers)
        if graph.state:
            names = ", ".join(node.attrs["name"] for node in graph.state)
            raise GraphFlowError(f"graph {graph.name!r} has state without values ({names})")
        return cls(graph, list(map(_array, args)), [])

    @property
    def arguments(self) -> list[Array]:
        """An array for every input of the graph, run-time scalars read now."""
        return [*self.inputs, *(np.array(float(s.read())) for s in self.scalars)]

    def cells(self) -> dict[str, Cell]:
        """The state by name in fresh memory."""
        named = zip(self.graph.state, self.state, strict=True)
        return {node.attrs["name"]: Cell(np.array(value)) for node, value in named}

    def values(self, double: bool) -> Values:
        """The interpreter's values, in double or in each type's own precision."""
        return Values(self.graph, self, double)


class Values(Evaluation):
    """The interpreter's value of any node that stands on the leaves of a graph.

    Leaves of regions, which have none, are given random numbers.
    """

    def __init__(self, graph: Graph, setting: Setting, double: bool) -> None:
        super().__init__(graph, double)
        named = zip(graph.state, setting.state, strict=True)
        self.bind(setting.arguments, {n.attrs["name"]: value for n, value in named})
        self._random = np.random.default_rng(0)

    def evaluate(self, node: Node) -> Any:
        """The value of one node whose operands have values."""
        if node.op.name in ("input", "state") and isinstance(node.type, TensorType):
            return self.widened(self._drawn(node.type))
        return super().evaluate(node)

    def tensor(self, node: Node) -> Array | None:
        """The value of a node if it is one tensor that can be computed here, else None."""
        if not isinstance(node.type, TensorType):
            return None
        try:
            return np.asarray(self.value(node))
        except (GraphError, ArithmeticError, ValueError, IndexError):
            return None

    def _drawn(self, type: TensorType) -> Array:
        shape, dtype = self.shape(type), type.dtype.numpy
        if type.dtype.is_floating_point or type.dtype.is_complex:
            return np.asarray(self._random.normal(size=shape)).astype(dtype)
        return np.zeros(shape, dtype)


def _array(value: Any) -> Any:
    if isinstance(value, float):
        return np.array(value)
    return (value if isinstance(value, Tensor) else as_tensor(value))._eager()
