"""Products of numbers that 8-bit integers stand for, as products of the integers.

With ``x = (q - z) s`` and ``w = (p - y) t`` a sum over ``k`` products is
``s t (sum q p - z sum p - y sum q + k z y)``.  Files in ONNX's QDQ form say so: a product of
two ``DequantizeLinear``.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any, ClassVar, TypeAlias

import numpy as np

from graphflow.ir.build import NODES as b
from graphflow.ir.build import constant, emit
from graphflow.ir.graph import Graph
from graphflow.ir.interp import interpret
from graphflow.ir.node import Form, Node
from graphflow.ir.op import Kind
from graphflow.ir.pattern import match, parse_pattern
from graphflow.ir.types import TensorType, float32, int8, int16, int32, uint8
from graphflow.passes.base import Pass
from graphflow.passes.rewrite import hits, rewrite
from graphflow.records import NamedTuple

Ints: TypeAlias = tuple[int, ...]
_NUMBERS = tuple(
    map(
        parse_pattern,
        (
            "mul(cast(sub(cast(%q), %zero)), %scale)",
            "mul(sub(cast(%q), %zero), %scale)",
            "mul(cast(cast(%q)), %scale)",
            "mul(cast(%q), %scale)",
        ),
    )
)
"""What integers stand for, in the forms that it has."""
LEAST_DEPTH = 16
"""Sums of fewer products are left to floats: integers are multiplied four at a time."""
MIDDLE = 128
"""How far uint8 is from int8, which is what kernels have."""
_LEADING = 3
"""Axes of images ``[N, G, C, *S]`` and taps ``[G, O, C, *K]`` before those of space."""


@dataclass(frozen=True)
class IntegerProducts(Pass):
    """Multiply 8-bit integers instead of the numbers that they stand for::

        %2 = mul(sub(cast(%q), 3.0), 0.1)        %2 = matmul(%q, %p, dtype=i32)
        %3 = mul(cast(%p), %t)              →    %3 = sub(%2, reduce_sum(cast(%p)) * 3)
        %4 = matmul(%2, %3)                      %4 = mul(cast(%3), 0.1 * %t)

    Zero points are constants, one a tensor, and scales one for each axis that the result has,
    at most.  Sums are exact, so rounding differs by that of a sum of floats.
    """

    name: ClassVar[str] = "integer_products"

    def run(self, graph: Graph) -> Graph:
        """The graph with such products of integers, in its regions too."""
        if not graph.has_control and not any(map(_is_of_bytes, graph.forms)):
            return graph  # as nearly all are
        return rewrite(graph, _of_integers, only=_is_product)


def _is_of_bytes(form: Form) -> bool:
    return isinstance(form.type, TensorType) and form.type.dtype in (int8, uint8)


def _is_product(form: Form) -> bool:
    if form.op.kind is not Kind.CONTRACTION or form.op.tiles is not None:
        return False
    return isinstance(form.type, TensorType) and form.type.dtype is float32


def _of_integers(node: Node) -> Node | None:
    """The product ``node`` by way of integers; ``None`` if its operands are not of them."""
    if not _is_product(node.form) or not all(n.tensor_type.is_static for n in node.inputs):
        return None
    left, right = (_integers(n) for n in node.inputs)
    if left is None or right is None:
        return None
    made = (_convolved if node.op.slides else _multiplied)(node, left, right)
    hits["product of integers"] += made is not None
    return made


# ---- operands ------------------------------------------------------------------------


class Integers(NamedTuple):
    """An operand of a product: what it shows of int8, and which numbers these stand for."""

    whole: Node
    zero: int
    scale: Node
    """One number, or as many as ``whole`` has."""
    which: np.ndarray[Any, Any]
    """[whole] which of the scales belongs to each element."""

    def factor(self, summed: Ints) -> Node | None:
        """The scale without axes that are ``summed``; ``None`` if it differs along them."""
        if self.scale.shape == ():
            return self.scale
        first = self.which[tuple(slice(0, 1) if a in summed else slice(None) for a in _axes(self))]
        if (self.which != first).any():
            return None
        limits = tuple(1 if a in summed else d for a, d in enumerate(self.scale.shape))
        zeros, ones = (0,) * len(limits), (1,) * len(limits)
        shown = b.slice(self.scale, starts=zeros, limits=limits, steps=ones)
        kept = tuple(d for a, d in enumerate(limits) if a not in summed)
        return emit("reshape", shown, shape=kept)

    def total(self, summed: Ints) -> Node:
        """What the integers add up to, along axes."""
        return emit("reduce_sum", b.cast(self.whole, dtype=int32), axes=summed)


def _axes(side: Integers) -> range:
    return range(side.which.ndim)


def _integers(node: Node) -> Integers | None:
    """The integers that ``node`` stands for, by way of views perhaps."""
    views: list[Node] = []
    while node.op.kind is Kind.VIEW and node.op.fill is None and len(node.inputs) == 1:
        views.append(node)
        node = node.inputs[0]
    bound = next((m for p in _NUMBERS if (m := match(p, node)) is not None), None)
    if bound is None or bound["q"].dtype not in (int8, uint8) or bound["q"].shape != node.shape:
        return None
    zero = _zero_of(bound.get("zero"))
    if zero is None:
        return None
    whole, scale = bound["q"], bound["scale"]
    if whole.dtype is uint8:
        whole, zero = _signed(whole), zero - MIDDLE
    which = np.broadcast_to(np.zeros((), np.int64), node.shape)
    if scale.tensor_type.numel == 1:
        scale = b.reshape(scale, shape=())
    else:
        numbers = np.arange(prod(scale.tensor_type.static_shape)).reshape(scale.shape)
        which, scale = np.broadcast_to(numbers, node.shape), b.expand(scale, shape=node.shape)
    for view in reversed(views):
        whole = emit(view.op, whole, **view.attrs)
        scale = scale if scale.shape == () else emit(view.op, scale, **view.attrs)
        which = view.op.reference(which, **view.attrs)
    return Integers(whole, zero, scale, which)


def _signed(whole: Node) -> Node:
    """uint8 as int8, 128 less."""
    wide = b.cast(whole, dtype=int16)
    return emit("cast", b.sub(wide, constant(MIDDLE, int16)), dtype=int8)


def _zero_of(node: Node | None) -> int | None:
    """The one zero point, 0 without any; ``None`` if there are several, or it is not known."""
    if node is None:
        return 0
    graph = Graph((), (node,))
    if any(n.op.kind is Kind.LEAF and n.op.name != "constant" for n in graph.nodes):
        return None
    values = np.unique(interpret(graph, []).outputs[0])
    return int(values[0]) if len(values) == 1 and values[0] == int(values[0]) else None


# ---- products ------------------------------------------------------------------------


def _scaled(sums: Node, first: Node, second: Node) -> Node:
    return emit("mul", b.cast(sums, dtype=float32), b.mul(first, second))


def _convolved(node: Node, image: Integers, taps: Integers) -> Node | None:
    """A convolution of one group: windows of several are slow to copy.

    Windows overlap, so the image has one scale, and taps the zero point 0.
    """
    attrs: Any = node.attrs
    w = node.inputs[1]
    summed = tuple(range(2, len(w.shape)))
    depth = prod(w.tensor_type.static_shape[2:])
    factor = taps.factor(summed)
    plain = set(attrs["spread"]) <= {1} and min(*attrs["low"], *attrs["high"], 0) == 0
    wanted = image.scale.shape == () and taps.zero == 0 and w.shape[0] == 1
    if factor is None or not (plain and wanted) or depth < LEAST_DEPTH:
        return None
    lead, none = (0,) * _LEADING, (0,) * len(attrs["low"])
    whole = image.whole
    if any((*attrs["low"], *attrs["high"])):  # with what zero is as an integer
        low, high = (*lead, *attrs["low"]), (*lead, *attrs["high"])
        whole = b.pad(whole, low=low, high=high, value=image.zero)
    geometry = {**attrs, "low": none, "high": none, "dtype": int32}
    sums = emit(node.op, whole, taps.whole, **geometry)
    filters = prod(w.tensor_type.static_shape[:2])
    place = (filters, *(1,) * len(none))
    sums = b.reshape(sums, shape=(sums.shape[0], filters, *sums.shape[_LEADING:]))
    if image.zero:
        total = b.reshape(taps.total(summed), shape=place)
        sums = b.sub(sums, b.mul(total, constant(image.zero, int32)))
    factor = factor if factor.shape == () else b.reshape(factor, shape=place)
    return emit("reshape", _scaled(sums, image.scale, factor), shape=node.shape)


def _multiplied(node: Node, left: Integers, right: Integers) -> Node | None:
    """A product over axes of one label, which ``contraction`` of the operation says."""
    assert node.op.contraction is not None
    *labels, out = node.op.contraction([n.tensor_type for n in node.inputs], node.attrs)
    summed = [tuple(a for a, n in enumerate(own) if n not in out) for own in labels]
    depth = prod(node.inputs[1].tensor_type.static_shape[a] for a in summed[1])
    one, two = (side.factor(axes) for side, axes in zip((left, right), summed, strict=True))
    alike = {labels[0][a] for a in summed[0]} == {labels[1][a] for a in summed[1]}
    if one is None or two is None or not alike or depth < LEAST_DEPTH:
        return None

    def placed(k: int, x: Node) -> Node:
        """``x`` with the kept axes of operand ``k``, where the result has them."""
        kept = [n for n in labels[k] if n in out]
        if x.shape == ():
            return x
        order = sorted(range(len(kept)), key=lambda a: out.index(kept[a]))
        extents = {n: x.shape[a] for a, n in enumerate(kept)}
        turned = b.permute(x, axes=tuple(order))
        return emit("reshape", turned, shape=tuple(extents.get(n, 1) for n in out))

    sums = emit(node.op, left.whole, right.whole, **{**node.attrs, "dtype": int32})
    for zero, k, other in ((left.zero, 1, right), (right.zero, 0, left)):
        if zero:
            total = placed(k, other.total(summed[k]))
            sums = b.sub(sums, b.mul(total, constant(zero, int32)))
    if left.zero and right.zero:
        sums = b.add(sums, constant(depth * left.zero * right.zero, int32))
    return _scaled(sums, placed(0, one), placed(1, two))
