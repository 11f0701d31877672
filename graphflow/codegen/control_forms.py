"""What memory the results of control flow need, and how they lie in it.

A carry of ``scan`` that is also stacked, before or after the step, needs no memory for
itself: all its values lie one after the other in the rows of a *history*, ``length + 1``
of them.  A step reads one row and writes the next; the stacked result and the last
value are views.  (A recurrent network's state is stacked after the step; what a
gradient needs is stacked before it.)
"""

from __future__ import annotations

from collections.abc import Sequence

from graphflow.codegen.layout import Layout
from graphflow.ir.graph import Graph
from graphflow.ir.node import Node
from graphflow.ir.op import Kind
from graphflow.ir.types import TensorType, TupleType
from graphflow.passes.dataflow import has_kernel, is_alias
from graphflow.records import dataclass


@dataclass(frozen=True, slots=True)
class Form:
    """The values that an operation fills: their ``types``, and for each of its results
    which value it is and from which row on (-1: the whole of it)."""

    types: tuple[TensorType, ...]
    results: tuple[tuple[int, int], ...]
    node: Node

    def items(self, values: Sequence[Layout]) -> list[Layout]:
        """The layout of every result."""
        found = []
        for type, (value, row) in zip(_items(self.node), self.results, strict=True):
            found.append(_from_row(values[value], type, row))
        return found


def _items(node: Node) -> list[TensorType]:
    """The types of the results of ``node``."""
    assert isinstance(node.type, TupleType)
    return [item for item in node.type.items if isinstance(item, TensorType)]


def _from_row(value: Layout, type: TensorType, row: int) -> Layout:
    """The part of ``value`` from ``row`` on: that row alone, or all that ``type`` holds."""
    if row == -1:
        return value
    strides = value.strides if type.rank == value.type.rank else value.strides[1:]
    return Layout(value.buffer, type, value.offset + row * value.strides[0], strides)


@dataclass(frozen=True, slots=True)
class ScanForm(Form):
    """How a scan lies in memory.

    ``histories`` are the values (by carry) that keep every carry; the others, by
    carry, are ``carries``.  ``stacks`` are the values of stacked results, each with
    the node of the body that fills a row of it in every step.
    """

    histories: dict[int, int]
    carries: dict[int, int]
    stacks: tuple[tuple[int, Node], ...]

    def row(self, after: int) -> int:
        """The row of a history that the first step reads (0) or writes (1)."""
        if not self.node.attrs["reverse"]:
            return after
        return self.length - after

    @property
    def length(self) -> int:
        """The number of steps."""
        length: int = self.node.attrs["length"]
        return length

    @property
    def step(self) -> int:
        """Rows from one step to the next."""
        return -1 if self.node.attrs["reverse"] else 1


def control_form(node: Node) -> Form:
    """The form of an operation with regions."""
    if node.op.name == "scan":
        return _scan_form(node)
    types = tuple(_items(node))
    return Form(types, tuple((number, -1) for number in range(len(types))), node)


def _scan_form(node: Node) -> ScanForm:
    body: Graph = node.attrs["body"]
    carried, length, reverse = (node.attrs[k] for k in ("carried", "length", "reverse"))
    types: list[TensorType] = []
    histories: dict[int, int] = {}
    carries: dict[int, int] = {}
    stacked = body.outputs[carried:]
    for k, (old, new) in enumerate(zip(body.inputs, body.outputs[:carried])):
        kept = old is not new and (old in stacked or new in stacked)
        rows = (length + 1,) if kept else ()
        (histories if kept else carries)[k] = len(types)
        types.append(TensorType(old.tensor_type.dtype, (*rows, *old.tensor_type.shape)))
    last = 0 if reverse else length
    results = [(k, last if k in histories else -1) for k in range(carried)]
    rows_of: dict[Node, tuple[int, int]] = {}
    for k in histories:
        rows_of.setdefault(body.inputs[k], (k, 1 if reverse else 0))
        rows_of.setdefault(body.outputs[k], (k, 0 if reverse else 1))
    stacks: list[tuple[int, Node]] = []
    for item in stacked:
        if item not in rows_of:
            rows_of[item] = len(types), -1
            stacks.append((len(types), item))
            types.append(TensorType(item.tensor_type.dtype, (length, *item.tensor_type.shape)))
        results.append(rows_of[item])
    return ScanForm(tuple(types), tuple(results), node, histories, carries, tuple(stacks))


def regions_of(node: Node) -> list[Graph]:
    """The regions of an operation."""
    return [value for value in node.attrs.values() if isinstance(value, Graph)]


def loops_in(node: Node) -> int:
    """How many levels of loops an operation itself adds to those around it."""
    return 0 if node.op.name == "cond" else 1


def can_fail(node: Node) -> bool:
    """Whether something inside the regions of ``node`` can fail, or runs on the host."""
    for region in regions_of(node):
        for inner in region.nodes:
            if inner.op.fallible:
                return True
            if inner.op.kind is Kind.CONTROL:
                if can_fail(inner):
                    return True
            elif not (has_kernel(inner) or is_alias(inner) or inner.op.kind is Kind.LEAF):
                return True
    return False
