"""What fusion sees of a graph: work nodes, and the views between them.

Views that only rename, insert or drop axes cost nothing in a kernel, and
cheap values (generators, broadcasts of constants, arithmetic on single
elements of leaves) are computed anew by whoever needs them.  What is left,
the *work* nodes, is numbered in topological order; an edge between two of
them remembers which axis of the producer each axis of the operand is.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from functools import lru_cache

from graphflow.ir.affine import Affine, Piece
from graphflow.ir.graph import Graph
from graphflow.ir.node import Node, of_form
from graphflow.ir.op import GATHERED, Kind, OpDef
from graphflow.ir.types import DType, TensorType, Type
from graphflow.records import dataclass

CHEAP_COST = 12.0
"""Scalar instructions up to which a one-element value is computed anew in every kernel."""


class Role(enum.Enum):
    """How fusion treats a node."""

    LEAF = "leaf"
    VIEW = "view"  # an alias of its operand, in memory or in index arithmetic
    CHEAP = "cheap"  # computed anew in every group that reads it
    ELEMENTWISE = "elementwise"
    READ = "read"  # copies through computed indices: gather, pad, concatenate
    REDUCTION = "reduction"
    CONTRACTION = "contraction"
    SINGLE = "single"  # never fused: control flow, scatters, lines, host operations


@dataclass(frozen=True, slots=True)
class Edge:
    """One operand of a work node: ``operand`` shows work node ``source`` (-1: a leaf).

    ``axes[k]`` is the axis of the source that axis ``k`` of the operand runs
    along, -1 for a broadcast or one-element axis; ``None`` if some axis is
    not simply an axis of the source (a slice, a merged axis).  ``gathered``
    marks the data of a gather, read at a computed index along one axis.
    """

    operand: Node
    source: int
    axes: tuple[int, ...] | None
    gathered: bool = False


class Dataflow:
    """The work nodes of a graph and the edges between them; see the module's text."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.role: dict[Node, Role] = {}
        self.work: list[Node] = []
        self.roles: list[Role] = []
        self.number: dict[Node, int] = {}
        self.edges: list[tuple[Edge, ...]] = []
        self.users: list[list[int]] = []
        self.escapes: list[bool] = []
        self.part: list[int] = []
        """To which part of the graph work belongs, -1 for none (:attr:`OpDef.begins`)."""
        self.literals: set[Node] = set()
        """Scalar constants, which are written into the text of kernels, and views of them."""
        self._base: dict[Node, tuple[Node, tuple[int, ...] | None, bool]] = {}
        self._cost: dict[Node, float] = {}
        self._shown: dict[Node, Edge] = {}
        self._parts: dict[Node, int] = {}
        """Nodes that belong to a part, views among them."""
        self._roots = set(graph.roots)
        for node in graph.nodes:
            self._add(node)
        for root in graph.roots:
            number = self.number.get(self._base[root][0])
            if number is not None:
                self.escapes[number] = True

    def base(self, node: Node) -> Node:
        """The node that ``node`` is a chain of views of (itself if it is no view)."""
        return self._base[node][0]

    def is_mapped(self, node: Node) -> bool:
        """True when index maps lead from ``node`` to its base: a kernel can follow them."""
        return self._base[node][2]

    def shape(self, number: int) -> tuple[object, ...]:
        """The shape of work node ``number``."""
        return self.work[number].shape

    def _add(self, node: Node) -> None:
        role = self._classify(node)
        self.role[node] = role
        part = self._part(node) if self._parts or node.op.begins else -1
        if role is Role.VIEW:
            base, axes, mapped = self._base[node.inputs[0]]
            pieces = view_pieces(node)
            here = choice_of_axes(node, pieces)
            self._base[node] = base, _compose(axes, here), mapped and bool(pieces)
            if base in self.literals:
                self.literals.add(node)
            return
        rank = len(node.type.shape) if isinstance(node.type, TensorType) else 0
        self._base[node] = node, tuple(range(rank)), True
        if role is Role.LEAF or role is Role.CHEAP:
            if is_literal(node):
                self.literals.add(node)
            return
        number = self.number[node] = len(self.work)
        self.work.append(node)
        self.roles.append(role)
        self.users.append([])
        self.escapes.append(False)
        self.part.append(part)
        edges = [self._shown.get(operand) or self._edge(operand) for operand in node.inputs]
        read_at = gathered_operand(node) if role is Role.READ else None
        if read_at is not None:
            place, axis = read_at
            edges[place] = _gathered(edges[place], axis)
        for edge in edges:
            source = edge.source
            if source >= 0 and (not self.users[source] or self.users[source][-1] != number):
                self.users[source].append(number)
        self.edges.append(tuple(edges))

    def _part(self, node: Node) -> int:
        """The part that ``node`` belongs to: it begins there, or has operands of it."""
        known, begins = self._parts, node.op.begins
        if begins:
            found: int = node.attrs[begins]
        else:
            found = max((known.get(n, -1) for n in node.inputs), default=-1)
        if found >= 0 or begins:
            known[node] = found
        return found

    def _edge(self, operand: Node) -> Edge:
        """What ``operand`` shows, the same to all that read it element by element."""
        base, axes, _ = self._base[operand]
        edge = self._shown[operand] = Edge(operand, self.number.get(base, -1), axes)
        return edge

    def _classify(self, node: Node) -> Role:
        op = node.op
        if op.kind is Kind.LEAF:
            return Role.LEAF
        if not has_kernel(node):
            return Role.SINGLE
        if op.kind is Kind.VIEW:
            return Role.VIEW if is_alias(node) else Role.READ
        if op.kind is Kind.GENERATOR:
            return Role.CHEAP if self._from_leaves(node) is not None else Role.ELEMENTWISE
        if op.kind is Kind.ELEMENTWISE:
            return self._classify_elementwise(node)
        if op.kind is Kind.REDUCTION:
            return Role.REDUCTION
        if op.kind is Kind.GATHER:
            return Role.READ
        return Role.CONTRACTION if op.kind is Kind.CONTRACTION else Role.SINGLE

    def _classify_elementwise(self, node: Node) -> Role:
        if node.tensor_type.numel != 1 or node in self._roots:
            return Role.ELEMENTWISE  # a root is stored anyway: let others read it
        cost = self._from_leaves(node)
        if cost is None or cost + node.op.cost > CHEAP_COST:
            return Role.ELEMENTWISE
        self._cost[node] = cost + node.op.cost
        return Role.CHEAP

    def _from_leaves(self, node: Node) -> float | None:
        """The cost of computing the operands anew, ``None`` if some operand is work."""
        cost = 0.0
        for operand in node.inputs:
            base = self._base[operand][0]
            role = self.role[base]
            if role is Role.CHEAP:
                cost += self._cost.get(base, base.op.cost)
            elif role is not Role.LEAF:
                return None
        return cost


def _gathered(edge: Edge, axis: int) -> Edge:
    """``edge`` to data that is read at a computed index along ``axis``."""
    axes = edge.axes
    if axes is not None:
        axes = tuple(-1 if k == axis else a for k, a in enumerate(axes))
    return Edge(edge.operand, edge.source, axes, gathered=True)


@of_form
def folded_axes(node: Node) -> tuple[int, ...]:
    """The axes that reduction ``node`` folds."""
    axes: tuple[int, ...] | None = node.attrs.get("axes")
    return (node.attrs["axis"],) if axes is None else axes


@of_form
def is_literal(node: Node) -> bool:
    """True for a scalar constant: it is written into the text of kernels."""
    return node.op.kind is Kind.LEAF and "value" in node.attrs and node.tensor_type.rank == 0


@of_form
def is_alias(node: Node) -> bool:
    """True for a view that shows each element of its one operand as it is (no fill)."""
    if node.op.kind is not Kind.VIEW or len(node.inputs) != 1:
        return False
    pieces = view_pieces(node)
    return not pieces or (len(pieces) == 1 and not pieces[0].conditions)


@of_form
def view_pieces(node: Node) -> Sequence[Piece]:
    """The index map of view ``node`` over variables ``i0, i1, …``; empty if it has none
    (it then shows its operand in row-major order)."""
    if node.op.index is None:
        return ()
    types = [n.tensor_type for n in node.inputs]
    return node.op.index(types, node.attrs, variables(len(node.shape)))


def choice_of_axes(node: Node, pieces: Sequence[Piece]) -> tuple[int, ...] | None:
    """Which operand axis each result axis of a view runs along (-1: none).

    ``None`` when the view is more than a choice of axes.
    """
    if not pieces:
        return None
    operand = node.inputs[0].tensor_type
    axes = [-1] * len(node.shape)
    for axis, index in enumerate(pieces[0].index):
        extent = operand.shape[axis]
        if extent == 1:
            continue
        place = _plain_variable(index)
        if place is None or node.shape[place] != extent:
            return None
        axes[place] = axis
    return tuple(axes)


@of_form
def gathered_operand(node: Node) -> tuple[int, int] | None:
    """For a gather that keeps all axes but one in place: its data operand and that axis."""
    if node.op.kind is not Kind.GATHER:
        return None
    pieces = view_pieces(node)
    if len(pieces) != 2 or len(pieces[1].index) != len(node.shape):
        return None
    found = None
    for axis, index in enumerate(pieces[1].index):
        if any(name == GATHERED for name, _ in index.terms):
            found = axis
        elif _plain_variable(index) != axis:
            return None
    return None if found is None else (pieces[1].operand, found)


def _plain_variable(index: Affine) -> int | None:
    """``k`` if ``index`` is just the variable ``i{k}``."""
    if len(index.terms) != 1 or index.offset != 0 or index.terms[0][1] != 1:
        return None
    return int(index.terms[0][0][1:])


@lru_cache(maxsize=64)
def variables(rank: int) -> tuple[Affine, ...]:
    """Index variables ``i0 … i{rank-1}``."""
    return tuple(Affine.variable(f"i{axis}") for axis in range(rank))


def _compose(
    inner: tuple[int, ...] | None, outer: tuple[int, ...] | None
) -> tuple[int, ...] | None:
    if inner is None or outer is None:
        return None
    return tuple(inner[a] if a >= 0 else -1 for a in outer)


@of_form
def has_kernel(node: Node) -> bool:
    """True when loops or contractions can compute ``node``: its record says how, for
    its element types.  What has no kernel is run by its reference on the host."""
    if not _is_real(node.type):
        return False
    for operand in node.inputs:
        if not _is_real(operand.type):
            return False
    op, kind = node.op, node.op.kind
    if kind is Kind.ELEMENTWISE or kind is Kind.GENERATOR:
        return _has_template(op, (node.inputs[-1] if node.inputs else node).dtype)
    if kind is Kind.REDUCTION:
        return op.reduction is not None
    if kind is Kind.CONTRACTION or kind is Kind.LINE:
        return True
    if kind is Kind.VIEW:
        return op.index is not None or len(node.inputs) == 1
    return kind in (Kind.GATHER, Kind.SCATTER) and op.index is not None


def _is_real(type: Type) -> bool:
    return isinstance(type, TensorType) and not type.dtype.is_complex


def _has_template(op: OpDef, dtype: DType) -> bool:
    template = op.scalar
    if template is None or isinstance(template, str):
        return template is not None
    return dtype.short in template or dtype.kind in template
