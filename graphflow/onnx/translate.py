"""An ONNX graph as a function of tensors: every node calls its operator's function.

A value is a tensor; a *known* array, whose numbers are there while the model is loaded
(initializers that are no weights, constants, shapes, and what is computed from those: it
may hold symbolic sizes, then its dtype is object); a list (a sequence); or None.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from graphflow.errors import GraphError, GraphFlowError
from graphflow.ir.dims import SymDim
from graphflow.ir.types import from_numpy_dtype, int64
from graphflow.mode import mode
from graphflow.onnx.model_file import (
    array_of,
    attributes_of,
    definition,
    key_of,
    onnx_package,
    opset_of,
)
from graphflow.onnx.operators.sizes import on_sizes
from graphflow.onnx.operators.table import OPERATORS, Operator, as_tensor, number_of_dtype
from graphflow.tensor import Tensor
from graphflow.trace import outside_trace

Values = dict[str, Any]


class NeedsValue(GraphError):
    """An operator needs the values of an input of the graph; ``inputs`` names those it has."""

    def __init__(self, message: str, inputs: Sequence[str]) -> None:
        super().__init__(message)
        self.inputs = tuple(inputs)


@contextmanager
def _as_module(node: Any) -> Iterator[None]:
    """While a node is traced, its name is the module path of what it makes."""
    tracer = mode.tracer
    if tracer is None:
        yield
        return
    own = (node.name or node.op_type).strip("/").replace("/", ".")
    tracer.modules.append(".".join([*tracer.modules[-1:], own]))
    try:
        yield
    finally:
        tracer.modules.pop()


class Translation:
    """A model being run on tensors: ``weights`` are its trained values by name."""

    def __init__(self, model: Any, weights: Mapping[str, Tensor]) -> None:
        self.model, self.opset = model, opset_of(model)
        self.weights = weights
        self.functions = {(f.domain, f.name): f for f in model.functions}
        self.inputs = frozenset(i.name for i in model.graph.input)
        self._initial = {
            t.name: array_of(t) for t in model.graph.initializer if t.name not in weights
        }

    def run(self, inputs: Mapping[str, Any]) -> list[Any]:
        """The outputs of the model for values of its inputs."""
        graph = self.model.graph
        try:
            return self.run_graph(graph, {**self._initial, **self.weights, **inputs})
        except NeedsValue as error:
            found = sources(graph.node, error.inputs, self.inputs)
            raise NeedsValue(
                f"{error}, which are computed from {', '.join(map(repr, found)) or 'weights'}: "
                f"give them as values={{{(found or ['name'])[0]!r}: array, …}}",
                found,
            ) from None

    def run_graph(self, graph: Any, values: Values) -> list[Any]:
        """The outputs of a graph, given the values it can see; adds its own to them."""
        for tensor in graph.initializer:
            if tensor.name not in values:
                values[tensor.name] = array_of(tensor)
        self.run_nodes(graph.node, values, self.opset)
        return [_value(values, out.name, "the graph's outputs") for out in graph.output]

    def run_nodes(self, nodes: Any, values: Values, opset: int) -> None:
        """Run nodes in order."""
        for node in nodes:
            try:
                with _as_module(node):
                    results = self.run_node(node, values, opset)
            except NeedsValue:
                raise
            except (GraphFlowError, TypeError, ValueError, IndexError, KeyError) as error:
                raise _located(error, node) from error
            for name, value in zip(node.output, results):
                if name:
                    values[name] = value

    def run_node(self, node: Any, values: Values, opset: int) -> Sequence[Any]:
        """The results of one node."""
        inputs = [_value(values, n, node.name) if n else None for n in node.input]
        key = key_of(node)
        if key in self.functions:
            return self.call_function(self.functions[key], node, inputs)
        found = OPERATORS.get(key)
        if found is None:
            return self.expand(node, inputs, key, opset)
        wanted = sum(map(bool, node.output))
        asked = {"opset": opset, "outputs": wanted, "scope": Scope(self, values, node)}
        options = {name: asked[name] for name in found.asked} | attributes_of(node)
        if found.folds and all(map(_numbers, inputs)):
            with outside_trace():
                return [_known(r) for r in _several(_call(found, inputs, options, node))]
        if any(map(_symbolic, inputs)):
            sizes = on_sizes(found.name, inputs, options)
            if sizes is not None:
                return _several(sizes)
        return _several(_call(found, inputs, options, node))

    def call_function(self, function: Any, node: Any, inputs: Sequence[Any]) -> list[Any]:
        """A function that the model (or the standard) defines by nodes, applied."""
        given = {a.name: a for a in function.attribute_proto}
        given |= {a.name: a for a in node.attribute}
        nodes = [_with_attributes(inner, given) for inner in function.node]
        values: Values = dict(zip(function.input, [*inputs, *[None] * len(function.input)]))
        versions = [e.version for e in function.opset_import if e.domain in ("", "ai.onnx")]
        try:
            self.run_nodes(nodes, values, versions[0] if versions else self.opset)
        except NeedsValue as error:
            outer = dict(zip(function.input, node.input))
            found = sources(nodes, error.inputs, outer)
            raise NeedsValue(str(error), [outer[name] for name in found]) from None
        return [values.get(name) for name in function.output]

    def expand(self, node: Any, inputs: Sequence[Any], key: Any, opset: int) -> list[Any]:
        """An operator that has no function here, by the standard's definition of it."""
        onnx = onnx_package()
        schema = definition(key, opset)
        if schema is None:
            raise GraphError(f"operator {key[1]} is not supported")
        opset = opset if not key[0] else schema.since_version
        node = _with_defaults(node, schema)
        if schema.has_function:
            body = schema.function_body
        else:
            types = [_type_proto(onnx, value) for value in inputs]
            text = schema.get_context_dependent_function_with_opset_version(
                opset, node.SerializeToString(), [t.SerializeToString() for t in types]
            )
            body = onnx.FunctionProto.FromString(text)
        return self.call_function(body, node, inputs)


class Scope:
    """What an operator that holds graphs sees: the values around it."""

    def __init__(self, translation: Translation, values: Values, node: Any) -> None:
        self.translation, self.values, self.node = translation, values, node

    def need(self, *inputs: int) -> NeedsValue:
        """The error that says that these inputs of the node must be known."""
        return NeedsValue(
            f"{self.node.op_type} '{self.node.name or self.node.output[0]}' needs to know how "
            "often it runs when the model is loaded",
            [self.node.input[k] for k in inputs if self.node.input[k]],
        )

    def run(self, graph: Any, inputs: Sequence[Any]) -> list[Any]:
        """The outputs of ``graph`` for its inputs, as tensors, arrays or lists."""
        names = [i.name for i in graph.input]
        inner = {**self.values, **dict(zip(names, inputs, strict=True))}
        for tensor in graph.initializer:
            inner[tensor.name] = array_of(tensor)
        try:
            return self.translation.run_graph(graph, inner)
        except NeedsValue as error:
            outer = dict(zip(names, self.node.input))
            found = sources(graph.node, error.inputs, {**self.values, **outer})
            raise NeedsValue(str(error), [outer.get(n) or n for n in found]) from None


def sources(nodes: Any, names: Sequence[str], ends: Any) -> list[str]:
    """Which of ``ends`` the values called ``names`` are computed from (shapes do not count)."""
    makers = {out: node for node in nodes for out in node.output if out}
    pending, seen, found = list(names), set[str](), dict[str, None]()
    for name in pending:
        if name in ends:
            found[name] = None
        elif name in makers and name not in seen and makers[name].op_type not in ("Shape", "Size"):
            pending += [read for read in makers[name].input if read]
        seen.add(name)
    return list(found)


# ---- values --------------------------------------------------------------------------


def _value(values: Values, name: str, where: str) -> Any:
    if name not in values:
        raise GraphError(f"nothing gives the value '{name}' that {where or 'a node'} reads")
    return values[name]


def _several(results: Any) -> Sequence[Any]:
    """Results are a tuple; anything else is the only one."""
    return results if isinstance(results, tuple) else (results,)


def _symbolic(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype == object


def _numbers(value: Any) -> bool:
    """Whether a value is known, down to its numbers."""
    if isinstance(value, list):
        return all(map(_numbers, value))
    return value is None or (isinstance(value, np.ndarray) and value.dtype != object)


def _known(value: Any) -> Any:
    if isinstance(value, list):
        return [_known(v) for v in value]
    return value.numpy(force=True) if isinstance(value, Tensor) else value


def as_known(value: Any) -> np.ndarray[Any, Any] | None:
    """The numbers of a value that must be known; None if they are not."""
    if isinstance(value, np.ndarray):
        return value
    if isinstance(value, Tensor) and value._cell.tracer is None:
        return value.numpy(force=True)
    return None


def _call(found: Operator, inputs: Sequence[Any], options: dict[str, Any], node: Any) -> Any:
    """The operator's function on inputs of the kinds it asks for."""
    if len(inputs) > len(found.positional) and not found.variadic:
        raise GraphError(f"it takes at most {len(found.positional)} inputs")
    given: list[Any] = []
    unknown: list[str] = []
    for position, value in enumerate(inputs):
        name = found.positional[position] if position < len(found.positional) else ""
        if name in found.known and value is not None:
            array = as_known(value)
            if array is None:
                unknown.append(node.input[position])
            given.append(array)
        else:
            given.append(value if found.raw else as_tensor(value))
    if unknown:
        raise NeedsValue(
            f"{node.op_type} '{node.name or node.output[0]}' needs the values of "
            f"{', '.join(map(repr, unknown))} when the model is loaded, because they decide shapes",
            unknown,
        )
    return found.function(*given, **options)


def _located(error: Exception, node: Any) -> Exception:
    """The same complaint with the node's name."""
    text = f"{node.op_type} '{node.name or node.output[0]}': {error}"
    if getattr(error, "onnx_node", False):
        return error
    made: Any = type(error)(text) if type(error) in _PLAIN else GraphError(text)
    made.onnx_node = True
    return made  # type: ignore[no-any-return]


_PLAIN = (GraphError, GraphFlowError, TypeError, ValueError, IndexError)


def _with_attributes(node: Any, given: Mapping[str, Any]) -> Any:
    """A node of a function's body, attributes it takes from the call filled in."""
    onnx = onnx_package()
    made = onnx.NodeProto()
    made.CopyFrom(node)
    del made.attribute[:]
    for attribute in node.attribute:
        if not attribute.ref_attr_name:
            kept = made.attribute.add()
            kept.CopyFrom(attribute)
            for graph in (kept.g, *kept.graphs) if attribute.HasField("g") else kept.graphs:
                filled = [_with_attributes(inner, given) for inner in graph.node]
                del graph.node[:]
                graph.node.extend(filled)
        elif attribute.ref_attr_name in given:
            taken = made.attribute.add()
            taken.CopyFrom(given[attribute.ref_attr_name])
            taken.name = attribute.name
    return made


def _with_defaults(node: Any, schema: Any) -> Any:
    """``node`` with the attributes that it leaves to the standard."""
    made = onnx_package().NodeProto()
    made.CopyFrom(node)
    given = {a.name for a in node.attribute}
    for name, attribute in schema.attributes.items():
        if name not in given and attribute.default_value.type:
            made.attribute.add().CopyFrom(attribute.default_value)
    return made


def _type_proto(onnx: Any, value: Any) -> Any:
    """The type of a value, for definitions that depend on types."""
    if value is None:
        return onnx.TypeProto()
    if isinstance(value, list):
        made = onnx.TypeProto()
        made.sequence_type.elem_type.CopyFrom(_type_proto(onnx, value[0] if value else None))
        return made
    if isinstance(value, np.ndarray):
        dtype = int64 if value.dtype == object else from_numpy_dtype(value.dtype)
    else:
        dtype = value.dtype
    extents = [None if isinstance(d, SymDim) else int(d) for d in value.shape]
    return onnx.helper.make_tensor_type_proto(number_of_dtype(dtype), extents)
