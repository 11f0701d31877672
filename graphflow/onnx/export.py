"""``gf.onnx.export``: a function, module or program as an ONNX file."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from graphflow import pytree
from graphflow.autograd.modes import no_grad
from graphflow.capture import capture, captured_memory
from graphflow.cell import Cell
from graphflow.errors import GraphError
from graphflow.guards import named_cells
from graphflow.ir.graph import Graph
from graphflow.ir.node import Node
from graphflow.labels import leaf_labels
from graphflow.mode import mode
from graphflow.onnx.exporting.composites import Arguments
from graphflow.onnx.exporting.control import write_control
from graphflow.onnx.exporting.everything import COMPOSITES
from graphflow.onnx.exporting.primitives import PRIMITIVES
from graphflow.onnx.exporting.recording import Call, Recorder
from graphflow.onnx.exporting.writer import Writer
from graphflow.onnx.keywords import exporting, translated
from graphflow.onnx.model_file import onnx_package
from graphflow.primitives import fresh
from graphflow.program import Program
from graphflow.reach import Reach
from graphflow.records import NamedTuple
from graphflow.specs import TensorSpec
from graphflow.tensor import Tensor
from graphflow.version import __version__

OPSET = 20
"""The version of the operators that is written unless another is asked for."""
OLDEST, NEWEST = 14, 24
IR_VERSIONS = {14: 7, 15: 8, 19: 9, 21: 10, 23: 11}
"""The version of the file format from a version of the operators on."""
CONTROL = ("scan", "while_loop", "cond")
LARGEST = 1 << 30
"""Weights of more bytes go into a file of their own."""


def export(
    target: Any,
    args: Sequence[Any] | Any = (),
    path: str | Path | None = None,
    *,
    opset: int = OPSET,
    dynamic: Mapping[str, Mapping[int, str]] | None = None,
    external: bool | None = None,
    input_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
    **options: Any,
) -> Any:
    """Write a function, module, graph or program as ONNX; returns the ``ModelProto``.

    A function or module is traced for ``args``, tensors or :class:`TensorSpec`, whose named
    extents become dynamic axes (``dynamic={"images": {0: "batch"}}`` says the same of example
    tensors, by the names of parameters or of ``input_names``); layers are written as the
    operators that ONNX has for them.  A graph or program (no ``args``) is written primitive by
    primitive.  ``opset`` 14 to 24; the file format's version follows from it.  ``external``
    puts the weights into a file beside (None: if they are large).  Raises GraphError naming
    every operation that ONNX does not have, or not for the types it is used with, and for a
    program that changes state or draws random numbers.  ``options`` are PyTorch's: ``f``,
    ``opset_version``, ``dynamic_axes``, ``external_data``; others have no effect.
    """
    if options:
        own: dict[str, Any] = {
            "path": path,
            "opset": opset,
            "dynamic": dynamic,
            "external": external,
        }
        own |= translated(options, output_names)
        return export(target, args, input_names=input_names, output_names=output_names, **own)
    if not OLDEST <= opset <= NEWEST:
        raise GraphError(f"opset must be from {OLDEST} to {NEWEST}, not {opset}")
    traced = _traced(target, _with_symbols(target, args, dynamic or {}, input_names))
    _check(traced)
    model = _model(traced, opset, input_names, output_names)
    if path is not None:
        _save(model, Path(path), external)
    else:
        onnx_package().checker.check_model(model)
    return model


def _with_symbols(
    target: Any, args: Any, dynamic: Mapping[str, Mapping[int, str]],
    input_names: Sequence[str] | None,
) -> tuple[Any, ...]:  # fmt: skip
    """The arguments, those with dynamic axes as specs."""
    given = tuple(args) if isinstance(args, (tuple, list)) else (args,)
    if not dynamic:
        return given
    names = input_names or leaf_labels(getattr(target, "original", target), given, {})
    unknown = [name for name in dynamic if name not in names]
    if unknown:
        raise GraphError(f"dynamic names {', '.join(unknown)}; the inputs are {', '.join(names)}")
    specs: list[Any] = []
    for name, value in zip(names, given, strict=True):
        axes = dynamic.get(name)
        if axes:
            extents = [axes.get(k, n) for k, n in enumerate(value.shape)]
            value = TensorSpec(extents, value.dtype, name=name)
        specs.append(value)
    return tuple(specs)


class Traced(NamedTuple):
    """A graph, the values of its state, the calls that made it, and better names for state."""

    graph: Graph
    weights: dict[str, np.ndarray[Any, Any]]
    calls: Sequence[Call] = ()
    called: Mapping[str, str] = {}


def _weights(graph: Graph, cells: Sequence[Cell]) -> dict[str, np.ndarray[Any, Any]]:
    """The values of a graph's state by name, copied from a device if they lie on one."""
    return {n.attrs["name"]: Tensor._of(cell)._host() for n, cell in zip(graph.state, cells)}


def _traced(target: Any, args: tuple[Any, ...]) -> Traced:
    if isinstance(target, Program):
        return Traced(target.graph, _weights(target.graph, target.cells))
    if isinstance(target, Graph):
        captured = captured_memory(target)
        if captured is None and target.state:
            raise GraphError("the graph has state without values; export its program instead")
        cells = captured.cells if captured is not None else ()
        return Traced(target, _weights(target, cells))
    function = getattr(target, "original", target)
    recorder = Recorder({name: c.function for name, c in COMPOSITES.items()})
    with exporting():
        found = capture(_recorded(function, recorder), args, {}, _title(function))
    names = _state_names(function)
    pairs = list(zip(found.graph.state, found.cells, strict=True))
    held = _weights(found.graph, found.cells)
    called: dict[str, str] = {n.attrs["name"]: names[id(c)] for n, c in pairs if id(c) in names}
    return Traced(found.graph, held, recorder.calls, called)


def _recorded(function: Callable[..., Any], recorder: Recorder) -> Callable[..., Any]:
    def traced(*arguments: Any) -> Any:
        _name_parts(function)
        with no_grad(), recorder:
            leaves = pytree.flatten(function(*arguments))[0]
        return tuple(fresh(leaf) for leaf in leaves if isinstance(leaf, Tensor))

    taken = getattr(function, "forward", function)
    with suppress(TypeError, ValueError):
        traced.__signature__ = inspect.signature(taken)  # type: ignore[attr-defined]
    return traced


def _name_parts(function: Any) -> None:
    """Let the modules in a module be called by their paths below it in the file."""
    if mode.tracer is not None and hasattr(function, "named_modules"):
        for path, module in function.named_modules():
            mode.tracer.name_module(module, path)


def _title(function: Any) -> str:
    return str(getattr(function, "__name__", type(function).__name__))


def _check(traced: Traced) -> None:
    if traced.graph.updates:
        own = [cell.attrs["name"] for cell, _ in traced.graph.updates]
        names = ", ".join(repr(traced.called.get(name, name)) for name in own)
        raise GraphError(
            f"a program that changes state cannot be exported (it changes {names}); call "
            "model.eval() first, so that nothing is updated and nothing random is drawn"
        )


class Export:
    """One export: which calls and nodes are written, in order."""

    def __init__(self, calls: Sequence[Call], opset: int) -> None:
        self.opset = opset
        self.made_by = {node: call for call in calls for node in call.results}
        self._usable: dict[Call, bool] = {}

    def call_of(self, node: Node) -> Call | None:
        """The call that is written for ``node``, if there is one."""
        call = self.made_by.get(node)
        if call is None:
            return None
        if call not in self._usable:
            entry = COMPOSITES[call.name]
            fits = self.opset >= entry.since and entry.when(Arguments(call.arguments))
            new = node not in _nodes_in(call.arguments)
            floating = all(result.dtype.is_floating_point for result in call.results)
            self._usable[call] = fits and new and floating
        return call if self._usable[call] else None

    def operands(self, node: Node) -> Sequence[Node]:
        """What must be written before ``node``."""
        call = self.call_of(node)
        return node.inputs if call is None else _nodes_in(call.arguments)

    def order(self, roots: Sequence[Node]) -> list[Node]:
        """Every node that is written for ``roots``, operands first."""
        order: list[Node] = []
        done: set[Node] = set()
        for root in roots:
            stack: list[tuple[Node, Iterator[Node]]] = []
            if root not in done:
                done.add(root)
                stack.append((root, iter(self.operands(root))))
            while stack:
                node, pending = stack[-1]
                for child in pending:
                    if child not in done:
                        done.add(child)
                        stack.append((child, iter(self.operands(child))))
                        break
                else:
                    order.append(node)
                    stack.pop()
        return order

    def check(self, graph: Graph) -> None:
        """Raise one GraphError for all operations that ONNX does not have."""
        missing: dict[str, list[str]] = {}
        for region, node in self._all(graph):
            known = node.op.name in PRIMITIVES or node.op.name in (*CONTROL, "get")
            if not known and node.op.name not in ("input", "state"):
                missing.setdefault(node.op.name, []).append(str(region.location(node) or ""))
        if missing:
            lines = [f"  {name}: {', '.join(dict.fromkeys(at))}" for name, at in missing.items()]
            more = "\n  random numbers: call model.eval()" if "random_bits" in missing else ""
            raise GraphError(
                "ONNX has no operator for these operations (after each: where they are)\n"
                + "\n".join(lines) + more
            )  # fmt: skip

    def _all(self, graph: Graph) -> Iterator[tuple[Graph, Node]]:
        for node in self.order(graph.outputs):
            if self.call_of(node) is None:
                yield graph, node
                for value in node.attrs.values():
                    if isinstance(value, Graph):
                        yield from self._all(value)

    def write(self, w: Writer, graph: Graph) -> None:
        """Write what the outputs of ``graph`` need."""
        several: dict[Node, tuple[str, ...]] = {}
        for node in self.order(graph.outputs):
            if node in w.names:
                continue
            place = graph.location(node)
            w.module = f"{place.module}/" if place is not None and place.module else ""
            call = self.call_of(node)
            w.source = f"{call.name if call else node.op.name} at {place}"
            if call is not None:
                made = COMPOSITES[call.name].write(w, Arguments(call.arguments))
                names = made if isinstance(made, tuple) else (made,)
                w.names.update(zip(call.results, names, strict=True))
            elif node.op.name in CONTROL:
                several[node] = write_control(w, node, self.write)
            elif node.op.name == "get":
                w.names[node] = several[node.inputs[0]][node.attrs["index"]]
            else:
                w.names[node] = PRIMITIVES[node.op.name](w, node)
                w.types.agree(w.names[node], node.dtype, w.source)


def _nodes_in(arguments: Mapping[str, Any]) -> list[Node]:
    leaves = pytree.flatten(dict(arguments))[0]
    return [leaf for leaf in leaves if isinstance(leaf, Node)]


def _state_names(function: Any) -> dict[int, str]:
    """By the memory of tensors: the names of a module's ``state_dict``, or where they are."""
    if not hasattr(function, "named_parameters"):
        reached = named_cells(Reach(function).roots)
        return {id(cell): name for cell, name in reached.items()}
    pairs = [*function.named_parameters(), *function.named_buffers()]
    return {id(tensor._cell): name for name, tensor in pairs}


def _model(
    traced: Traced, opset: int, input_names: Sequence[str] | None,
    output_names: Sequence[str] | None,
) -> Any:  # fmt: skip
    onnx = onnx_package()
    graph, weights, calls, called = traced
    work = Export(calls, opset)
    work.check(graph)
    w = Writer(opset)
    w.values.update(weights)
    names = _names(w, "input", input_names, [n.attrs["name"] for n in graph.inputs])
    w.names.update(zip(graph.inputs, names))
    for node in work.order(graph.outputs):
        if node.op.name == "state":
            own = node.attrs["name"]
            w.names[node] = w.unique(called.get(own, own))
            w.initial[w.names[node]] = weights[node.attrs["name"]]
    w.find_sizes(graph.inputs)
    work.write(w, graph)
    w.types.refuse()
    w.module = ""
    wanted = _names(w, "output", output_names, [f"output_{k}" for k in range(len(graph.outputs))])
    for name, node in zip(wanted, graph.outputs):
        w.nodes.append(onnx.helper.make_node("Identity", [w.name(node)], [name], name=name))
    inputs = [w.value_info(n, x.tensor_type) for n, x in zip(names, graph.inputs)]
    outputs = [w.value_info(n, x.tensor_type) for n, x in zip(wanted, graph.outputs)]
    _keep_used(w, wanted)
    made = w.finish(graph, inputs, outputs)
    return onnx.helper.make_model(
        made, opset_imports=[onnx.helper.make_opsetid("", opset)], producer_name="graphflow",
        producer_version=__version__,
        ir_version=IR_VERSIONS[max(v for v in IR_VERSIONS if v <= opset)],
    )  # fmt: skip


def _keep_used(w: Writer, wanted: Sequence[str]) -> None:
    """Drop the nodes and constants that nothing reads."""
    used, kept = set(wanted), []
    for node in reversed(w.nodes):
        if used.intersection(node.output):
            used.update(_reads(node))
            kept.append(node)
    w.nodes = kept[::-1]
    w.initial = {name: array for name, array in w.initial.items() if name in used}


def _reads(node: Any) -> Iterator[str]:
    """The values that a node and the graphs in it read."""
    yield from node.input
    for attribute in node.attribute:
        if attribute.HasField("g"):
            for inner in attribute.g.node:
                yield from _reads(inner)
            yield from (out.name for out in attribute.g.output)


def _names(
    w: Writer, what: str, asked: Sequence[str] | None, otherwise: Sequence[str]
) -> list[str]:
    if asked is not None and len(asked) != len(otherwise):
        raise GraphError(
            f"{what}_names has {len(asked)} names; the program has {len(otherwise)} {what}s"
        )
    return [w.unique(name) for name in asked or otherwise]


def _save(model: Any, path: Path, external: bool | None) -> None:
    onnx = onnx_package()
    size = sum(len(t.raw_data) for t in model.graph.initializer)
    if external or (external is None and size > LARGEST):
        beside = path.with_name(f"{path.name}.data")
        beside.unlink(missing_ok=True)
        copied = onnx.ModelProto()
        copied.CopyFrom(model)
        onnx.save_model(
            copied, str(path), save_as_external_data=True, location=beside.name, size_threshold=0
        )
    else:
        onnx.save_model(model, str(path))
    onnx.checker.check_model(str(path))
