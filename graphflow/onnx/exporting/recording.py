"""Which functions of the library made a traced graph.

A layer is many primitives, and ONNX has one operator for it.  While a function is traced
for export, the interpreter's profiling hook reports calls of the functions that have such
an operator: their arguments as they were given, and the nodes of their results.  So nothing
is guessed from the graph, and the functions themselves know nothing of it.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping
from types import CodeType, FrameType
from typing import Any

from graphflow import pytree
from graphflow.errors import GraphFlowError
from graphflow.ir.node import Node
from graphflow.mode import mode
from graphflow.records import dataclass
from graphflow.tensor import Tensor
from graphflow.trace import Tracer


@dataclass(frozen=True, eq=False)
class Call:
    """A call: the function's name, its arguments with nodes for tensors, its results' nodes."""

    name: str
    arguments: Mapping[str, Any]
    results: tuple[Node, ...]


class Recorder:
    """``with Recorder(functions):`` calls of these (name: function) in a trace are kept."""

    def __init__(self, functions: Mapping[str, Callable[..., Any]]) -> None:
        self.calls: list[Call] = []
        self._names: dict[CodeType, str] = {
            inspect.unwrap(function).__code__: name for name, function in functions.items()
        }
        self._open: list[tuple[FrameType, str, dict[str, Any]]] = []

    def __enter__(self) -> Recorder:
        self._before = sys.getprofile()
        sys.setprofile(self._event)
        return self

    def __exit__(self, *error: object) -> None:
        sys.setprofile(self._before)

    def _event(self, frame: FrameType, event: str, value: Any) -> None:
        if event == "call" and not self._open:
            name = self._names.get(frame.f_code)
            tracer = mode.tracer
            if name is not None and tracer is not None and tracer.region is None:
                self._open.append((frame, name, _with_nodes(tracer, dict(frame.f_locals))))
        elif event == "return" and self._open and self._open[-1][0] is frame:
            _, name, arguments = self._open.pop()
            tracer = mode.tracer
            if value is not None and tracer is not None:
                leaves = pytree.flatten(value)[0]
                if all(isinstance(leaf, Tensor) for leaf in leaves):
                    nodes = tuple(tracer.node(leaf) for leaf in leaves)
                    self.calls.append(Call(name, arguments, nodes))


def _with_nodes(tracer: Tracer, arguments: dict[str, Any]) -> dict[str, Any]:
    """The arguments with the nodes that tensors among them have now."""
    found: dict[str, Any] = {}
    for name, value in arguments.items():
        try:
            leaves, structure = pytree.flatten(value)
        except GraphFlowError:
            continue
        nodes = [tracer.node(x) if isinstance(x, Tensor) else x for x in leaves]
        found[name] = pytree.unflatten(structure, nodes)
    return found
