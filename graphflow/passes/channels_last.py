"""Images lie with their channels last between a convolution and the next.

A product over windows ``[N, C, H, W, …]`` makes ``[N, O, Y, X]``.  Here it makes
``[N, Y, X, O]``, and what follows is done in that order as far as the records of operations
say how (:mod:`graphflow.ir.ops.orders`): vectors then run along channels, whatever the
windows, steps and padding.  Values whose channels lie last already, and that a permutation
shows the other way, are taken as they lie.  Where an operation has no such form the value is
shown in its own order, which is a view; a result of the graph is copied, for its strides are seen,
unless images came in that order.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from graphflow.ir.build import emit
from graphflow.ir.graph import Graph
from graphflow.ir.node import Node, make_node
from graphflow.ir.op import Kind, Order
from graphflow.ir.ops import orders
from graphflow.ir.types import TensorType
from graphflow.passes.base import Pass
from graphflow.passes.dataflow import choice_of_axes, is_alias, view_pieces
from graphflow.passes.in_regions import in_regions
from graphflow.records import replace


@dataclass(frozen=True)
class ChannelsLast(Pass):
    """Put the channels of images last, from products over windows on; see the module's text.

    Sums may be taken in another order.  ``hidden`` are numbers of outputs whose order in memory
    nobody expects.
    """

    hidden: frozenset[int] = frozenset()
    name: ClassVar[str] = "channels_last"

    def run(self, graph: Graph) -> Graph:
        """The graph with its images in that order, where that moves less than it saves."""
        return in_regions(graph, _reordered, partial(_reordered, hidden=self.hidden))


def _reordered(graph: Graph, hidden: frozenset[int] = frozenset()) -> Graph:
    products = [n for n in graph.nodes if n.op.tiles or (n.op.contraction and _pairs(n.inputs[0]))]
    come_last, wanted = _shown_images(products), _wanted_orders(products)
    shown = {node for node in come_last if not _few(node, 1)}
    if not (shown or wanted or any(_order_of_image(n, n.inputs[0]) for n in products)):
        return graph
    results = {n for number, n in enumerate(graph.outputs) if number not in hidden}
    walk = _Walk(graph, shown, wanted, results, bool(come_last))
    for node in graph.nodes:
        walk.visit(node)
    return graph if walk.lost > walk.gained else walk.finish()


def _shown_images(products: Iterable[Node]) -> set[Node]:
    """What becomes windows of ``products``, and is a permutation of channels that lie last."""
    pending, seen = [node.inputs[0] for node in products], set[Node]()
    while pending:
        node = pending.pop()
        if node not in seen and node.op.kind in (Kind.VIEW, Kind.ELEMENTWISE):
            seen.add(node)
            pending.extend(node.inputs)
    return {node for node in seen if _shows_channels_last(node)}


def _wanted_orders(products: Iterable[Node]) -> dict[Node, Order]:
    """Values to be put into an order in which vectors run along channels under taps of their own,
    or along groups of a few.

    That is what windows are taken of, where a product over them has few columns.
    """
    found: dict[Node, Order] = {}
    for node in products:
        base, lanes = node.inputs[0], list[int | None](_lanes(node))
        while is_alias(base) and None not in lanes:
            below = [_axis_below(base, axis) for axis in lanes if axis is not None]
            base, lanes = base.inputs[0], below
        last = [axis for axis in lanes if axis is not None]
        if last and len(last) == len(lanes) and base.op.reordered and len(base.inputs) == 1:
            rest = [other for other in range(len(base.shape)) if other not in last]
            found[base] = (*rest, *last)
    return found


def _axis_below(view: Node, axis: int) -> int | None:
    """The axis of its operand that ``axis`` of a view runs along alone, from end to end."""
    for piece in view_pieces(view):
        for below, index in enumerate(piece.index):
            if index.terms == ((f"i{axis}", 1),):
                return below
    return None


def _lanes(node: Node) -> tuple[int, ...]:
    """The axes of the windows that ``node`` is a product over along which vectors may run.

    That of channels, if it takes a sum for each by itself; those of small groups and of channels
    of a group.
    """
    rule, windows = node.op.contraction, node.inputs[0]
    if rule is None or not _pairs(windows):
        return ()
    left, right, out = rule([n.tensor_type for n in node.inputs], node.attrs)
    extents = {label: node.shape[axis] for axis, label in enumerate(out)}
    columns = [label for label in out if label not in left and extents[label] != 1]
    shared = [label for label in out if label in left and label in right]
    inner = [
        label
        for axis, label in enumerate(left)
        if label in right and label not in out and _axis_below(windows, axis) is not None
    ]
    width = extents[columns[0]] if columns else 1
    if len(columns) > 1 or not isinstance(width, int) or width > orders.WIDEST_GROUP:
        return ()
    wanted = [windows.shape[left.index(label)] for label in inner]
    if columns and wanted != [width]:
        return ()
    for label in reversed(shared):
        axis = left.index(label)
        if (
            not _less(extents[label], orders.LEAST_CHANNELS // width)
            and _axis_below(windows, axis) is not None
        ):
            return (axis, left.index(inner[0])) if columns else (axis,)
    return ()


def _order_of_image(node: Node, windows: Node) -> Order | None:
    """The order of axes with channels last, if ``node`` is a product over ``windows`` whose
    places are the result's (as in a convolution, unlike in the gradient of its kernel)."""
    rule = node.op.contraction
    if node.op.tiles is not None and node.op.tiles.convolves:
        return None if node.attrs["last"] else orders.CHANNELS_LAST
    pairs = _pairs(windows)
    if rule is None or not pairs:
        return None
    left, right, out = rule([n.tensor_type for n in node.inputs], node.attrs)
    for pair in pairs:
        extents = [windows.shape[axis] for axis in pair]
        kept = [e for e, axis in zip(extents, pair) if left[axis] in out]
        summed = [e for e, axis in zip(extents, pair) if left[axis] not in out]
        if len(kept) != 1 or _less(kept[0], summed[0]):
            return None
    columns = [label for label in out if label not in left]
    rows = [label for label in out if label not in right]
    shared = [label for label in out if label in left and label in right]
    lanes = _lanes(node)
    last = (*columns, *shared) if len(lanes) == 1 else (*shared, *columns)
    if not columns or (not lanes and _few(node, out.index(last[-1]))):
        return None
    order = tuple(out.index(label) for label in (*rows, *last))
    return None if order == _own(node) else order


def _pairs(windows: Node) -> list[list[int]]:
    """The two axes of each that run along one of the operand; none if these are no windows."""
    if not is_alias(windows):
        return []
    return [
        [int(name[1:]) for name, _ in index.terms]
        for piece in view_pieces(windows)
        for index in piece.index
        if len(index.terms) == 2
    ]


def _shows_channels_last(node: Node) -> bool:
    """Whether ``node`` is a view of an image, or of windows of one, with its channels last that
    shows them second."""
    if not is_alias(node) or len(node.shape) < len(orders.CHANNELS_LAST):
        return False
    return choice_of_axes(node, view_pieces(node)) == orders.inverse(_last(node))


def _last(node: Node) -> Order:
    """The axes of ``node`` with the second as the last."""
    return (0, *range(2, len(node.shape)), 1)


def _less(extent: object, other: object) -> bool:
    return isinstance(extent, int) and isinstance(other, int) and extent < other


def _few(node: Node, axis: int) -> bool:
    return _less(node.shape[axis], orders.LEAST_CHANNELS)


class _Walk:
    """One walk over a graph: every value as it was, or in another order of axes, or both."""

    def __init__(
        self,
        graph: Graph,
        shown: set[Node],
        wanted: dict[Node, Order],
        results: set[Node],
        come_last: bool,
    ) -> None:
        self.graph = graph
        self.plain: dict[Node, Node] = {}
        self.turned: dict[Node, tuple[Node, Order]] = {}
        self.gained = 0
        self.lost = 0
        self._shown = shown
        self._come_last = come_last
        self._wanted = wanted
        self._results = results
        self._put_back = set[Node]()
        self._locations = dict(graph.locations)
        self._names = dict(graph.names)

    def visit(self, node: Node) -> None:
        """Find the form of ``node``, whose operands have theirs."""
        found = self._reordered(node)
        if found is not None and node in self._results and found[1] != _own(node):
            found = None  # whoever gets a result expects it in its own order
        if found is None and node in self._shown and node not in self._results:
            self.turned[node] = self.as_it_was(node.inputs[0]), _last(node)
            return
        if found is None:
            operands = [self.as_it_was(n) for n in node.inputs]
            if node.op.kind is not Kind.CONTRACTION and not is_alias(node):
                moved = (n for n in node.inputs if n in self.turned and n not in self._shown)
                self.lost += sum(map(_size, moved))
            made = node
            if any(a is not b for a, b in zip(operands, node.inputs, strict=True)):
                made = make_node(node.op, operands, node.attrs, node.type)
            self.plain[node] = made
        else:
            made, order = found
            if order == _own(node):
                self.plain[node] = made
            else:
                self.turned[node] = made, order
            if made.op.kind is not Kind.CONTRACTION and not is_alias(made):
                self.gained += _size(node)
        self._carry(node, made)

    def _carry(self, node: Node, made: Node) -> None:
        if made is node or not made.inputs:
            return
        if node in self._locations:
            self._locations.setdefault(made, self._locations[node])
        if node in self._names:
            self._names.setdefault(made, self._names[node])

    def as_it_was(self, node: Node) -> Node:
        """``node`` in its own order."""
        found = self.plain.get(node)
        if found is None:
            made, order = self.turned[node]
            found = self.plain[node] = emit("permute", made, axes=orders.inverse(order))
            self._put_back.add(found)
            self._carry(node, found)
        return found

    def in_order(self, node: Node, order: Order) -> Node:
        """``node`` with its axes in ``order``, which may have more axes in front."""
        found = self.turned.get(node)
        if found is not None and found[1] == order:
            return found[0]
        made = self.as_it_was(node)
        if not made.shape:
            return made
        if len(made.shape) < len(order):
            more = (1,) * (len(order) - len(made.shape))
            made = emit("reshape", made, shape=(*more, *made.shape))
        return emit("permute", made, axes=order)

    def _reordered(self, node: Node) -> tuple[Node, Order] | None:
        """``node`` on reordered operands; None if it is better left as it is."""
        if not isinstance(node.type, TensorType) or not node.inputs:
            return None
        if node.op.kind is Kind.CONTRACTION:
            return self._product(node)
        order = self._common_order(node) or self._wanted.get(node)
        if order is None:
            return None
        rule = orders.pointwise if node.op.kind is Kind.ELEMENTWISE else node.op.reordered
        if rule is None:
            return None
        types = [n.tensor_type for n in node.inputs]
        found = rule(types, node.attrs, [order] * len(types))
        if found is None:
            return None
        attrs, result = found
        return emit(node.op, *(self.in_order(n, order) for n in node.inputs), **attrs), result

    def _common_order(self, node: Node) -> Order | None:
        """The order of the first operand that has one and the result's rank and size, or, if no
        operand is as large as the result, its rank."""
        alone, elementwise = len(node.inputs) == 1, node.op.kind is Kind.ELEMENTWISE
        if not alone and not elementwise and len({len(n.shape) for n in node.inputs}) != 1:
            return None
        wide = elementwise and all(n.shape != node.shape for n in node.inputs)
        for operand in node.inputs:
            if operand in self.turned:
                same_rank = wide and len(operand.shape) == len(node.shape)
                if alone or not elementwise or operand.shape == node.shape or same_rank:
                    return self.turned[operand][1]
        return None

    def _product(self, node: Node) -> tuple[Node, Order] | None:
        rule = node.op.reordered
        if rule is None:
            return None
        types = [n.tensor_type for n in node.inputs]
        if node.op.tiles is not None:
            wanted = [orders.CHANNELS_LAST if _is_image(n) else _own(n) for n in node.inputs]
            known = rule(types, node.attrs, wanted)
            if known is None:
                return None
            operands = [self.in_order(n, order) for n, order in zip(node.inputs, wanted)]
            return emit(node.op, *operands, **known[0]), known[1]
        taken = [self.turned.get(n) or (self.plain[n], _own(n)) for n in node.inputs]
        found = rule(types, node.attrs, [order for _, order in taken])
        if found is None:
            return None
        attrs, result = found
        last = _order_of_image(node, node.inputs[0])
        if last is not None:
            attrs = {**attrs, "out": orders.put(attrs["out"], last)}
            result = last
        return emit(node.op, *(operand for operand, _ in taken), **attrs), result

    def _result(self, node: Node) -> Node:
        """A result, in its own order in memory as well, for callers take views of it; but where
        images come with channels last they go so, too, as PyTorch's do."""
        made = shown = self.as_it_was(node)
        if self._come_last or node not in self._results:
            return made
        while is_alias(shown) and shown not in self._put_back:
            (shown,) = shown.inputs
        run = _axes_in_memory(made) if shown in self._put_back else None
        if run is None or (own := [axis for axis in run if axis >= 0]) == sorted(own):
            return made
        copied = emit("copy", made)
        self._carry(node, copied)
        return copied

    def finish(self) -> Graph:
        """The graph over what was found."""
        updates = [(state, self.as_it_was(value)) for state, value in self.graph.updates]
        outputs = [self._result(node) for node in self.graph.outputs]
        made = self.graph.with_roots(outputs, updates)
        kept = set(made.nodes)
        return replace(
            made,
            locations={n: p for n, p in self._locations.items() if n in kept},
            names={n: s for n, s in self._names.items() if n in kept},
        )


def _axes_in_memory(node: Node) -> list[int] | None:
    """Which axes of what ``node`` is a view of its own run along (-1: none, it is repeated), those
    of one element left out; None for a view that does more than put axes in another order."""
    long = [axis for axis, extent in enumerate(node.shape) if extent != 1]
    if not is_alias(node):
        return long
    (operand,) = node.inputs
    below = _axes_in_memory(operand)
    extents = [(axis, extent) for axis, extent in enumerate(operand.shape) if extent != 1]
    pieces = view_pieces(node)
    if not pieces:  # a reshape
        same = [node.shape[axis] for axis in long] == [extent for _, extent in extents]
        return below if same else None
    chosen = choice_of_axes(node, pieces)
    if below is None or chosen is None:
        return None
    numbers = dict(zip((axis for axis, _ in extents), below, strict=True))
    return [numbers.get(chosen[axis], -1) for axis in long]


def _is_image(node: Node) -> bool:
    return len(node.shape) == len(orders.CHANNELS_LAST)


def _own(node: Node) -> Order:
    return tuple(range(len(node.shape)))


def _size(node: Node) -> int:
    """Elements of ``node``, as far as they are known."""
    size = 1
    for extent in node.shape:
        size *= extent if isinstance(extent, int) else 1
    return size
