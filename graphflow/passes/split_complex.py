"""Complex operations replaced by real ones on their parts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from graphflow.ir.build import NODES, constant
from graphflow.ir.graph import Graph
from graphflow.ir.node import Node
from graphflow.ir.op import Application, Kind
from graphflow.ir.ops import complex_parts
from graphflow.ir.types import TensorType
from graphflow.passes.base import Pass
from graphflow.passes.rewrite import hits, rewrite

_MOVING = (Kind.VIEW, Kind.GATHER, Kind.SCATTER)


@dataclass(frozen=True)
class SplitComplex(Pass):
    """Compute complex operations on pairs of real numbers, by the rules in their records.

    Kernels know real numbers only.  A complex result is put together as
    ``view_as_complex`` of both parts side by side; where it is used by another such
    operation, the parts are taken as they were, and nothing is ever put together::

        %0: c64[8] = add(%x, %x)        →      %0: f32[8,2] = view_as_real(%x)
        return %0                              %1: f32[8,1] = slice(%0, …)
                                               …
                                               %8: c64[8] = view_as_complex(%7)

    Views of complex leaves and of host calls' results stay: strides show them.
    """

    name: ClassVar[str] = "split_complex"

    def run(self, graph: Graph) -> Graph:
        """The graph in which only views, host calls and leaves are complex."""
        if not (graph.has_control or any(_is_complex(form.type) for form in graph.forms)):
            return graph
        return rewrite(graph, _split)


def _split(node: Node) -> Node | None:
    rule = node.op.parts or (complex_parts.each if node.op.kind in _MOVING else None)
    types = [n.type for n in node.inputs]
    if rule is None or not isinstance(node.type, TensorType):
        return None
    if not node.dtype.is_complex and not any(map(_is_complex, types)):
        return None
    if node.op.kind is Kind.VIEW and len(types) == 1:
        if not (node.dtype.is_complex and _is_complex(types[0])):
            return _cancelled(node)
        if node.op.fill is None and not _is_made(node.inputs[0]):
            return None
    operands = tuple(_parts(n) if _is_complex(n.type) else n for n in node.inputs)
    hits[f"split {node.op.name}"] += 1
    made = rule(NODES, node.op, Application(operands, None, node.attrs))
    return _joined(*made) if isinstance(made, tuple) else made


def _is_complex(type: Any) -> bool:
    return isinstance(type, TensorType) and type.dtype.is_complex


def _cancelled(node: Node) -> Node | None:
    """Taking apart what was put together."""
    inner = node.inputs[0]
    back = {"view_as_real": "view_as_complex", "view_as_complex": "view_as_real"}
    return inner.inputs[0] if back.get(node.op.name) == inner.op.name else None


def _is_made(node: Node) -> bool:
    """True when the parts of ``node`` are nodes of their own."""
    return node.op.name == "view_as_complex" or "value" in node.attrs


def _parts(node: Node) -> tuple[Node, Node]:
    """The real and imaginary part of a complex node."""
    if "value" in node.attrs:
        data = node.attrs["value"].array
        return constant(data.real), constant(data.imag)
    if node.op.name != "view_as_complex":
        return _half(NODES.view_as_real(node), 0), _half(NODES.view_as_real(node), 1)
    pair = node.inputs[0]
    if pair.op.name == "concatenate" and [n.shape[-1] for n in pair.inputs] == [1, 1]:
        real, imaginary = (NODES.reshape(n, shape=node.shape) for n in pair.inputs)
        return real, imaginary
    return _half(pair, 0), _half(pair, 1)


def _half(pair: Node, part: int) -> Node:
    """Element ``part`` of the last axis."""
    shape = pair.shape[:-1]
    starts = (*(0 for _ in shape), part)
    limits = (*shape, part + 1)
    sliced = NODES.slice(pair, starts=starts, limits=limits, steps=(1,) * len(starts))
    return NODES.reshape(sliced, shape=shape)  # type: ignore[no-any-return]


def _joined(real: Node, imaginary: Node) -> Node:
    """A complex node over its parts."""
    shape = real.shape
    columns = [NODES.reshape(part, shape=(*shape, 1)) for part in (real, imaginary)]
    pair = NODES.concatenate(*columns, axis=len(shape))
    return NODES.view_as_complex(pair)  # type: ignore[no-any-return]
