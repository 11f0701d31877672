"""What becomes small integers becomes them before elements are picked or put together.

Rounding to integers by a scale never swaps two numbers, so the largest of some numbers,
rounded, is the largest of the rounded numbers, to the last bit; and a part of a tensor, or
several tensors side by side, may be rounded before.  What a product gives to a pooling or a
concatenation is then stored with a byte an element, and rounded as it is made.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np

from graphflow.ir.build import constant, emit
from graphflow.ir.graph import Graph
from graphflow.ir.interp import interpret
from graphflow.ir.node import Form, Node
from graphflow.ir.op import Kind
from graphflow.ir.pattern import Pattern, build, match, parse_pattern, splat_of
from graphflow.ir.types import TensorType, int8, uint8
from graphflow.passes.base import Pass
from graphflow.passes.in_regions import in_regions
from graphflow.passes.rewrite import hits, rewrite
from graphflow.records import NamedTuple

_STEPS = ("round(mul(%x, %scale))", "round(div(%x, %scale))")
_WHOLE = (*(f"add({steps}, %zero)" for steps in _STEPS), *_STEPS)
_ABOVE = tuple(f"where(lt({whole}, %low), %low, {whole})" for whole in _WHOLE)
_CLIPPED = tuple(parse_pattern(f"where(gt({x}, %high), %high, {x})") for x in _ABOVE)
"""``clamp(round(x * scale) + zero, low, high)`` in the forms that it has."""
_BYTES = (int8, uint8)
_COMPUTED = (Kind.ELEMENTWISE, Kind.CONTRACTION, Kind.REDUCTION)
"""Kinds of what can round its results as it makes them."""


@dataclass(frozen=True)
class Narrow(Pass):
    """Round to integers of fewer bytes before what only picks elements, or moves them::

        %1 = maximum(%x, %y)                 %1 = cast(…round(mul(%x, 8.0))…, dtype=i8)
        %2 = round(mul(%1, 8.0))        →    %2 = cast(…round(mul(%y, 8.0))…, dtype=i8)
        %3 = cast(… %2 …, dtype=i8)          %3 = maximum(%1, %2)

    Where nothing else reads what is picked, and what it is picked of is computed.  Numbers
    are the same; integers that NaN becomes are not defined before either.
    """

    name: ClassVar[str] = "narrow"

    def run(self, graph: Graph) -> Graph:
        """The graph that picks among integers."""
        return in_regions(graph, _narrowed)


def _narrowed(graph: Graph) -> Graph:
    if not any(map(_makes_bytes, graph.forms)):
        return graph
    uses = Counter(operand for node in graph.nodes for operand in set(node.inputs))
    uses.update(graph.roots)
    return rewrite(graph, partial(_earlier, uses), into_regions=False)


def _makes_bytes(form: Form) -> bool:
    made = form.type
    return (
        form.op.kind is Kind.ELEMENTWISE and isinstance(made, TensorType) and made.dtype in _BYTES
    )


def _earlier(uses: Mapping[Node, int], node: Node) -> Node | None:
    """``node`` with its rounding done before elements are picked, or not at all where it gives
    back the integers that it is given; ``None`` if it does none."""
    found = rounding_of(node)
    if found is None:
        return None
    rounds, x = found
    given = _given_back(node, rounds, x)
    if given is not None:
        hits["round what is round"] += 1
        return given
    if uses.get(x, 1) > 1 or not _ends_well(uses, x):
        return None
    hits["round before picking"] += 1
    return _rounded(uses, rounds, x)


def rounding_of(node: Node) -> tuple[Rounds, Node] | None:
    """How ``node`` rounds to small integers by constants, and what; ``None`` if it does not."""
    if node.op.kind is not Kind.ELEMENTWISE or len(node.inputs) != 1:
        return None
    clipped = node.inputs[0]
    if node.dtype not in _BYTES or not clipped.dtype.is_floating_point:
        return None
    for pattern in _CLIPPED:
        bound = match(pattern, clipped)
        if bound is None:
            continue
        x = bound.pop("x")
        scalars = {name: scalar for name, n in bound.items() if (scalar := splat_of(n)) is not None}
        if len(scalars) < len(bound) or not scalars["scale"].attrs["value"].array > 0:
            return None
        return Rounds(node, pattern, scalars), x
    return None


class Rounds(NamedTuple):
    """A rounding: what it was of one tensor, and its constants."""

    node: Node
    pattern: Pattern
    scalars: dict[str, Node]

    def __call__(self, x: Node) -> Node:
        """The integers of ``x``."""
        made = build(self.pattern, {**self.scalars, "x": x}, x.dtype)
        return emit(self.node.op, made, **self.node.attrs)

    def of(self, number: Any, like: Node) -> Any:
        """The integer of a number."""
        whole = self(constant(number, like.dtype))
        return interpret(Graph((), (whole,)), []).outputs[0].item()


def _given_back(node: Node, rounds: Rounds, x: Node) -> Node | None:
    """The integers that ``x`` is made of, one by one, if ``node`` is these again, all of them."""
    steps: list[Node] = []
    while x.dtype is not node.dtype:
        inner = [n for n in x.inputs if splat_of(n) is None]
        plain = x.op.kind is Kind.ELEMENTWISE or (x.op.kind is Kind.VIEW and x.op.fill is None)
        if len(inner) != 1 or not plain:
            return None
        steps.append(x)
        x = inner[0]
    info = np.iinfo(node.dtype.numpy)
    every = np.arange(info.min, info.max + 1).astype(node.dtype.numpy)
    made, shown = constant(every), x
    for step in reversed(steps):
        if step.op.kind is Kind.VIEW:
            shown = emit(step.op, shown, **step.attrs)
        else:
            made = emit(step.op, *(splat_of(n) or made for n in step.inputs), **step.attrs)
    again = interpret(Graph((), (rounds(made),)), []).outputs[0]
    return shown if (again == every).all() else None


def _inner(uses: Mapping[Node, int], x: Node) -> tuple[Node, ...]:
    """The operands whose elements ``x`` picks or moves, without anything else reading them."""
    if x.op.kind is Kind.VIEW:
        return x.inputs
    return x.inputs if x.op.picks and uses.get(x, 1) == 1 else ()


def _ends_well(uses: Mapping[Node, int], x: Node) -> bool:
    """Whether something is picked or put together, of what is computed in the end."""
    stack, seen, chosen = [x], {x}, False
    while stack:
        node = stack.pop()
        inner = _inner(uses, node)
        if not inner and node.op.kind not in _COMPUTED:
            return False
        chosen = chosen or (node.op.picks and bool(inner)) or len(inner) > 1
        stack.extend(n for n in inner if n not in seen)
        seen.update(inner)
    return chosen


def _rounded(uses: Mapping[Node, int], rounds: Rounds, x: Node) -> Node:
    """What ``rounds`` makes of ``x``, by way of what it is picked of."""
    made: dict[Node, Node] = {}
    stack = [x]
    while stack:
        node = stack[-1]
        inner = _inner(uses, node)
        waiting = [n for n in inner if n not in made]
        if waiting:
            stack.extend(waiting)
            continue
        stack.pop()
        attrs = dict(node.attrs)
        if "value" in attrs:  # what a padding is filled with
            attrs["value"] = rounds.of(attrs["value"], node)
        made[node] = emit(node.op, *(made[n] for n in inner), **attrs) if inner else rounds(node)
    return made[x]
