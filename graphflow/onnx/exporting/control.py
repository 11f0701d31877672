"""Loops and branches: Scan, Loop and If, with the bodies as graphs of their own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphflow.ir.graph import Graph
from graphflow.ir.node import Node
from graphflow.ir.types import TensorType, bool_, int64
from graphflow.onnx.exporting.writer import Writer

Body = Callable[[Writer, Graph], None]
"""Writes the nodes of a region."""


def write_control(w: Writer, n: Node, body: Body) -> tuple[str, ...]:
    """The results of a ``scan``, ``while_loop`` or ``cond``."""
    return {"scan": _scan, "while_loop": _while_loop, "cond": _cond}[n.op.name](w, n, body)


def _inner(w: Writer, region: Graph, given: Sequence[str], body: Body) -> Writer:
    """The region written with these names for its inputs."""
    inner = Writer(w.opset, w)
    inner.names.update(zip(region.inputs, given, strict=True))
    body(inner, region)
    return inner


def _results(inner: Writer, region: Graph) -> list[Any]:
    """The outputs' types, each under a name of its own."""
    infos = []
    for node in region.outputs:
        name = inner.add("Identity", node)
        infos.append(inner.value_info(name, node.tensor_type))
    return infos


def _scan(w: Writer, n: Node, body: Body) -> tuple[str, ...]:
    region, carried, scanned = n.attrs["body"], n.attrs["carried"], n.attrs["scanned"]
    if not scanned:
        return _counted(w, n, body)
    given = [w.unique("item") for _ in range(carried + scanned)]
    captured = [w.name(x) for x in n.inputs[carried + scanned :]]
    inner = _inner(w, region, [*given, *captured], body)
    outputs = _results(inner, region)
    inputs = [inner.value_info(name, node.tensor_type) for name, node in zip(given, region.inputs)]
    stacked = len(region.outputs) - carried
    backward = [int(n.attrs["reverse"])]
    found = w.add(
        "Scan", *n.inputs[: carried + scanned], outputs=len(region.outputs),
        body=inner.finish(region, inputs, outputs), num_scan_inputs=scanned,
        scan_input_directions=backward * scanned, scan_output_directions=backward * stacked,
    )  # fmt: skip
    return found if isinstance(found, tuple) else (found,)


def _counted(w: Writer, n: Node, body: Body) -> tuple[str, ...]:
    """A scan over nothing: a loop of so many steps."""
    region, carried = n.attrs["body"], n.attrs["carried"]
    trips = w.add("Squeeze", w.size(n.attrs["length"]), w.ints([0]))
    going = w.constant(np.array(True))
    return _loop(w, region, n.inputs, carried, body, trips, going, None)


def _while_loop(w: Writer, n: Node, body: Body) -> tuple[str, ...]:
    carried, condition = n.attrs["carried"], n.attrs["condition"]
    captured = [w.name(x) for x in n.inputs[carried:]]
    outside = _inner(w, condition, [*map(w.name, n.inputs[:carried]), *captured], body)
    w.nodes += outside.nodes
    going = outside.name(condition.outputs[0])
    return _loop(w, n.attrs["body"], n.inputs, carried, body, "", going, condition)


def _loop(
    w: Writer, region: Graph, operands: Sequence[Node], carried: int, body: Body, trips: str,
    going: str, condition: Graph | None,
) -> tuple[str, ...]:  # fmt: skip
    step, holds = w.unique("step"), w.unique("going")
    given = [w.unique("carried") for _ in range(carried)]
    captured = [w.name(x) for x in operands[carried:]]
    inner = _inner(w, region, [*given, *captured], body)
    if condition is None:
        next_holds = inner.add("Identity", holds)
    else:
        new = [inner.name(x) for x in region.outputs[:carried]]
        again = _inner(inner, condition, [*new, *captured], body)
        inner.nodes += again.nodes
        next_holds = inner.add("Identity", again.name(condition.outputs[0]))
    flag = TensorType(bool_, ())
    outputs = [inner.value_info(next_holds, flag), *_results(inner, region)]
    inputs = [inner.value_info(step, TensorType(int64, ())), inner.value_info(holds, flag)]
    inputs += [inner.value_info(s, x.tensor_type) for s, x in zip(given, region.inputs)]
    found = w.add(
        "Loop", trips, going, *operands[:carried], outputs=len(region.outputs),
        body=inner.finish(region, inputs, outputs),
    )  # fmt: skip
    return found if isinstance(found, tuple) else (found,)


def _cond(w: Writer, n: Node, body: Body) -> tuple[str, ...]:
    given = [w.name(x) for x in n.inputs[1:]]
    branches = {}
    for attribute, name in (("then", "then_branch"), ("otherwise", "else_branch")):
        region = n.attrs[attribute]
        inner = _inner(w, region, given, body)
        outputs = _results(inner, region)
        branches[name] = inner.finish(region, [], outputs)
    count = len(n.attrs["then"].outputs)
    found = w.add("If", n.inputs[0], outputs=count, **branches)
    return found if isinstance(found, tuple) else (found,)
