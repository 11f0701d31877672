"""Patterns: IR text with names for values, such as ``add(mul(%x, %y), %x)``.

``%x`` binds any value, the same one wherever it is repeated; ``%_`` is any
value, unbound.  A number stands for a constant of that value, 0-d or filled:
``1`` for integers, ``1.0`` for floats (bit for bit: ``0.0`` is not ``-0.0``),
``true`` and ``false`` for booleans.  Attributes may be given, ``cast(%x,
dtype=f32)``; those left out are arbitrary.  ``concatenate(...)`` has any
operands.  Those of a commutative operation match in either order.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

import numpy as np

from graphflow.errors import GraphError
from graphflow.ir.build import NODES, constant
from graphflow.ir.graph import Graph
from graphflow.ir.literals import read_float
from graphflow.ir.node import Node, value_key
from graphflow.ir.op import Kind, lookup
from graphflow.ir.parser import read_value
from graphflow.ir.tokens import Line
from graphflow.ir.types import DType, TensorType
from graphflow.records import dataclass

Bindings: TypeAlias = Mapping[str, Node]


@dataclass(frozen=True, slots=True)
class Variable:
    """Any value; ``_`` binds nothing."""

    name: str


@dataclass(frozen=True, slots=True)
class Literal:
    """A constant, 0-d or filled, of this very value."""

    value: bool | int | float

    def bits(self, dtype: DType) -> bytes | None:
        """The bytes of the value in ``dtype``; ``None`` if it is of another kind."""
        kinds = {bool: ("bool",), int: ("int", "uint"), float: ("float",)}
        if dtype.kind not in kinds[type(self.value)]:
            return None
        return np.array(self.value, dtype.numpy).tobytes()


@dataclass(frozen=True, slots=True)
class Apply:
    """An operation on patterns."""

    op: str
    operands: tuple[Pattern, ...] | None
    attrs: tuple[tuple[str, Any], ...] = ()
    commutative: bool = False


Pattern: TypeAlias = Variable | Literal | Apply


def parse_pattern(text: str) -> Pattern:
    """Read a pattern; :class:`GraphError` says what is wrong with it."""
    line = Line(text, 1)
    pattern = _read(line)
    line.end()
    return pattern


def _read(line: Line) -> Pattern:
    token = line.take()
    if token[:1] == "%":
        return Variable(token[1:])
    if token in ("true", "false"):
        return Literal(token == "true")
    if line.accept("("):
        return _read_apply(token, line)
    try:
        return Literal(int(token) if token.removeprefix("-").isdigit() else read_float(token))
    except ValueError:
        line.error(f"expected %name, a number or operation(…), found {token!r}")


def _read_apply(op: str, line: Line) -> Apply:
    try:
        record = lookup(op)
    except GraphError as error:
        line.error(str(error))
    operands: list[Pattern] = []
    attrs: list[tuple[str, Any]] = []
    if line.tokens[line.at : line.at + 4] == [".", ".", ".", ")"]:
        line.at += 4
        return Apply(op, None)
    while not line.accept(")"):
        token = line.peek()
        if token.isidentifier() and line.tokens[line.at + 1] == "=":
            line.at += 2
            attrs.append((token, value_key(read_value(line))))
        else:
            operands.append(_read(line))
        if not line.accept(",") and line.peek() != ")":
            line.fail("',' or ')'")
    return Apply(op, tuple(operands), tuple(attrs), record.commutative and len(operands) == 2)


def splat_of(node: Node) -> Node | None:
    """The 0-d constant that ``node`` is or is filled with, else ``None``."""
    while node.op.kind is Kind.VIEW and node.op.name == "expand":
        node = node.inputs[0]
    if node.op.name == "constant" and node.type.shape == ():  # type: ignore[union-attr]
        return node
    return None


def match(pattern: Pattern, node: Node) -> dict[str, Node] | None:
    """The values bound when ``pattern`` matches at ``node``, else ``None``."""
    bound: dict[str, Node] = {}
    return bound if _match((pattern, node, None), bound) else None


def _match(goals: Any, bound: dict[str, Node]) -> bool:
    """Meet every goal of the linked list ``(pattern, node, further goals)``.

    Where operands commute, what follows decides which order is right.
    """
    while goals is not None:
        pattern, node, goals = goals
        if not _fits(pattern, node, bound):
            return False
        operands = pattern.operands if pattern.__class__ is Apply else None
        if operands is None:
            continue
        inputs = node.inputs
        if pattern.commutative:
            before = dict(bound)
            if _match((operands[0], inputs[0], (operands[1], inputs[1], goals)), bound):
                return True
            bound.clear()
            bound.update(before)
            inputs = inputs[::-1]
        for operand, source in zip(operands, inputs):
            goals = (operand, source, goals)
    return True


def _fits(pattern: Any, node: Node, bound: dict[str, Node]) -> bool:
    """True when ``node`` agrees with the top of ``pattern``; binds a variable."""
    kind = pattern.__class__
    if kind is Variable:
        name = pattern.name
        return name == "_" or bound.setdefault(name, node) is node
    if kind is Literal:
        return _is_literal(pattern, node)
    return _is_application(pattern, node)


def _is_application(pattern: Apply, node: Node) -> bool:
    """True when operation, number of operands and the given attributes agree."""
    if pattern.op != node.op.name:
        return False
    if pattern.operands is not None and len(pattern.operands) != len(node.inputs):
        return False
    for name, key in pattern.attrs:
        if name not in node.attrs or value_key(node.attrs[name]) != key:
            return False
    return True


def _is_literal(pattern: Literal, node: Node) -> bool:
    scalar = splat_of(node)
    if scalar is None:
        return False
    bits = pattern.bits(scalar.dtype)
    return bits is not None and bits == scalar.attrs["value"].array.tobytes()


def needed(pattern: Apply) -> tuple[frozenset[str], ...]:
    """Sets of operations, of each of which there is an operand wherever ``pattern`` matches."""
    found = []
    for operand in pattern.operands or ():
        if isinstance(operand, Apply):
            found.append(frozenset([operand.op]))
        elif isinstance(operand, Literal):
            found.append(_FILLED)
    return tuple(found)


_FILLED = frozenset(["constant", "expand"])


def build(pattern: Pattern, bound: Bindings, like: DType) -> Node:
    """The value that ``pattern`` spells; numbers become constants of dtype ``like``."""
    if isinstance(pattern, Variable):
        return bound[pattern.name]
    if isinstance(pattern, Literal):
        return constant(pattern.value, like)
    if pattern.attrs or pattern.operands is None:
        raise GraphError(f"a replacement with attributes ({pattern.op}) has to be a function")
    return NODES.emit(pattern.op, *[build(p, bound, like) for p in pattern.operands])


def find(graph: Graph, pattern: str) -> Iterator[tuple[Node, dict[str, Node]]]:
    """Every node of ``graph`` where ``pattern`` matches, with what it binds."""
    parsed = parse_pattern(pattern)
    for node in graph.nodes:
        bound = match(parsed, node)
        if bound is not None:
            yield node, bound


def fit(node: Node, type: TensorType) -> Node:
    """``node`` broadcast to ``type`` (itself if it has that type already)."""
    if node.type == type:
        return node
    if node.dtype is not type.dtype:
        raise GraphError(f"a replacement of type {node.type} does not fit {type}")
    return NODES.emit("expand", node, shape=type.shape)
