"""Sizes: integers that remember which expression of symbolic dimensions they are.

A graph with symbolic dimensions is scheduled for *example* sizes: every symbolic extent
becomes a :class:`Size`, an ``int`` with the example's value and its expression.
Arithmetic keeps expressions, so strides, offsets and counts know how they follow from the
dimensions.  Equality is by expression: ``batch`` is not 64, and not 1, whatever the
example says, so nothing is merged, dropped or written into a kernel that holds for the
example only.  ``<`` compares examples: it may *tune* (which loop is innermost, how many
threads), never decide what is right; what must hold for all sizes asks :func:`surely`.

:func:`graphflow.codegen.instance.at_sizes` then gives the schedule for other sizes.
"""

from __future__ import annotations

import copyreg
from collections.abc import Mapping
from typing import Any

from graphflow.ir import dims
from graphflow.ir.dims import Dim, SymDim, never_negative
from graphflow.ir.graph import Graph
from graphflow.ir.node import Node, make_node
from graphflow.ir.types import TensorType, TupleType, Type

LEAST_EXAMPLE = 32
"""Smaller examples would tune kernels for sizes that hardly matter."""
USUAL_EXAMPLES = (64, 16, 4, 2, 1, 256, 1024, 4096, 64)
"""Sizes to begin with where there is no example: the first that makes no extent negative."""


class Size(int):
    """An integer that is ``dim`` at the example sizes; see the module's text."""

    dim: SymDim

    def __new__(cls, value: int, dim: SymDim) -> Size:
        """The size that is ``value`` for the example."""
        made = super().__new__(cls, value)
        made.dim = dim
        return made

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Size) and int(self) == int(other) and self.dim == other.dim

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return hash((int(self), self.dim))

    def __bool__(self) -> bool:
        return True  # not known to be zero

    def __add__(self, other: Any) -> Any:
        return _combined(self, other, int.__add__, lambda a, b: a + b)

    def __radd__(self, other: Any) -> Any:
        return self + other

    def __sub__(self, other: Any) -> Any:
        return _combined(self, other, int.__sub__, lambda a, b: a - b)

    def __rsub__(self, other: Any) -> Any:
        return -self + other

    def __mul__(self, other: Any) -> Any:
        return _combined(self, other, int.__mul__, lambda a, b: a * b)

    def __rmul__(self, other: Any) -> Any:
        return self * other

    def __neg__(self) -> Any:
        return self * -1

    def __floordiv__(self, other: Any) -> Any:
        return _combined(self, other, int.__floordiv__, dims.quotient)

    def __rfloordiv__(self, other: Any) -> Any:
        return _sized(other // int(self), dims.quotient(other, self.dim))

    def __mod__(self, other: Any) -> Any:
        return self - self // other * other

    def __rmod__(self, other: Any) -> Any:
        return other - other // self * self

    def __repr__(self) -> str:
        return str(self.dim)

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return format(str(self.dim), spec)

    def attribute_key(self) -> tuple[Any, ...]:
        """Key for interning: the expression and the example."""
        return (int(self), self.dim.terms)


def _restore(value: int, dim: SymDim) -> Size:
    return Size(value, dim)


copyreg.pickle(Size, lambda size: (_restore, (int(size), size.dim)))


def whole(dim: Dim) -> int:
    """A part of an index expression as an integer: symbols are sizes down here."""
    return dim if isinstance(dim, int) else dim.evaluate({})


def dim_of(value: int) -> Dim:
    """The expression behind ``value``."""
    return value.dim if isinstance(value, Size) else value


def _sized(value: int, dim: Dim) -> int:
    return Size(value, dim) if isinstance(dim, SymDim) else dim


def _combined(left: int, right: Any, number: Any, expression: Any) -> Any:
    if not isinstance(right, int):
        return number(int(left), right)
    return _sized(number(int(left), int(right)), expression(dim_of(left), dim_of(right)))


def example_of(value: int) -> int:
    """The plain number that ``value`` is for the example."""
    return int(value)


def is_fixed(value: int) -> bool:
    """True when ``value`` is the same for all sizes."""
    return not isinstance(value, Size)


def least(left: int, right: int) -> int:
    """``min`` that keeps expressions."""
    return _sized(min(int(left), int(right)), dims.least(dim_of(left), dim_of(right)))


def greatest(left: int, right: int) -> int:
    """``max`` that keeps expressions."""
    return _sized(max(int(left), int(right)), dims.greatest(dim_of(left), dim_of(right)))


def surely(low: int, high: int) -> bool:
    """True when ``low <= high`` is known for all sizes."""
    return never_negative(dim_of(high) - dim_of(low))


def is_multiple(value: int, of: int) -> bool:
    """True when ``value`` is known to be a multiple of ``of`` for all sizes."""
    if not isinstance(value, Size):
        return value % of == 0
    return all(coefficient % of == 0 for _, coefficient in value.dim.terms)


# ---- a graph for example sizes -------------------------------------------------------


def for_example(graph: Graph, sizes: Mapping[str, int]) -> Graph:
    """``graph`` with every symbolic extent as a :class:`Size`."""
    return _Sizing(sizes).graph(graph)


class _Sizing:
    """Rewrites the types and attributes of graphs, regions included."""

    def __init__(self, sizes: Mapping[str, int]) -> None:
        self.sizes = sizes

    def graph(self, graph: Graph) -> Graph:
        new: dict[Node, Node] = {}
        for node in graph.nodes:
            attrs = {name: self.value(value) for name, value in node.attrs.items()}
            inputs = [new[n] for n in node.inputs]
            new[node] = make_node(node.op, inputs, attrs, self.type(node.type))
        for leaf in (*graph.inputs, *graph.state):
            if leaf not in new:
                new[leaf] = make_node(leaf.op, (), leaf.attrs, self.type(leaf.type))
        return Graph(
            inputs=tuple(new[n] for n in graph.inputs),
            outputs=tuple(new[n] for n in graph.outputs),
            state=tuple(new[n] for n in graph.state),
            updates=tuple((new[a], new[b]) for a, b in graph.updates),
            name=graph.name,
            locations={new[n]: place for n, place in graph.locations.items() if n in new},
        )

    def value(self, value: Any) -> Any:
        if isinstance(value, SymDim):
            return Size(value.evaluate(self.sizes), value)
        if isinstance(value, tuple):
            return tuple(map(self.value, value))
        if isinstance(value, Graph):
            return self.graph(value)
        return self.type(value) if isinstance(value, (TensorType, TupleType)) else value

    def type(self, type: Type) -> Type:
        if isinstance(type, TupleType):
            return TupleType(tuple(map(self.type, type.items)))
        if type.is_static:
            return type
        return TensorType(type.dtype, tuple(map(self.value, type.shape)))


def known_sizes(graph: Graph, sizes: Mapping[str, int]) -> dict[str, int]:
    """The size of every symbol in ``graph``: as given, or one to begin with."""
    names = sorted(symbols_in(graph))
    for usual in USUAL_EXAMPLES:
        found = {name: sizes.get(name, usual) for name in names}
        if is_possible(graph, found):
            break
    return found


def example_for(
    graph: Graph, sizes: Mapping[str, int], largest: Mapping[str, int]
) -> Mapping[str, int]:
    """What to tune the kernels of ``graph`` for: the largest sizes, unless they are small."""
    found = {name: max(size, largest.get(name, 0), LEAST_EXAMPLE) for name, size in sizes.items()}
    return found if is_possible(graph, found) else sizes


def is_possible(graph: Graph, sizes: Mapping[str, int]) -> bool:
    """Whether no extent in ``graph`` is negative or zero for these sizes."""
    if not sizes:
        return True  # all extents are numbers
    types = {item for form in graph.forms for item in _tensors(form.type) if not item.is_static}
    return all(
        dim.evaluate(sizes) > 0 for type in types for dim in type.shape if isinstance(dim, SymDim)
    )


def _tensors(type: Type) -> list[TensorType]:
    items = type.items if isinstance(type, TupleType) else (type,)
    return [item for item in items if isinstance(item, TensorType)]


def symbols_in(graph: Graph) -> frozenset[str]:
    """The symbols of all types in ``graph``."""
    found: set[str] = set()
    for form in graph.forms:
        for item in _tensors(form.type):
            if not item.is_static:
                found.update(*(d.symbols for d in item.shape if isinstance(d, SymDim)))
    return frozenset(found)
