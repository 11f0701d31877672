"""Products of a scan that need no loop: one over all steps instead of one a step.

Three forms, all of which a gradient of a recurrence has::

    y_t = product(x_t, w)          → hoisted: product over all rows, before the loop
    s   = s + product(a_t, g_t)    → sunk: the factors are stacked, one product after it
    s   = s + sum(a_t)             → sunk: one sum after it, if the terms are stacked anyway

``x_t`` and ``a_t`` are rows that are scanned (or, sunk, anything the body computes), ``w``
comes from outside; ``s`` is a carry that nothing else reads.  Rows may be permuted.

One product over all steps reads what is fixed once, and writes what is summed once.  Where a
step's product does that for many rows already, it stays in the loop: nothing would be gained,
and what is made from its result, or what it is made from, would no longer be found in a cache.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import ClassVar

from graphflow.ir.build import NODES, emit, input_node
from graphflow.ir.graph import Graph
from graphflow.ir.node import Node, topological, with_inputs
from graphflow.ir.ops.contract import CONTRACT
from graphflow.ir.ops.reduce import REDUCE_SUM
from graphflow.ir.products import labels_of
from graphflow.passes.base import Pass
from graphflow.passes.in_regions import in_regions
from graphflow.passes.loop_operands import lying_as_read
from graphflow.records import replace

LARGE = 1 << 25
"""Bytes of memory for the sake of a product that are always worth it …"""
MANY = 8
"""… and beyond that so many times what the loop would need without."""
ENOUGH = 192
"""So many rows of a step, and fixed operands (sums) are read (written) seldom enough."""


@dataclass(frozen=True)
class LoopProducts(Pass):
    """Take products out of scans; see the module's text."""

    name: ClassVar[str] = "loop_products"

    def run(self, graph: Graph) -> Graph:
        """The graph with one product where there was one a step."""
        return in_regions(graph, _outside)


def _outside(graph: Graph) -> Graph:
    if not any(form.op.name == "scan" for form in graph.forms):
        return graph
    final: dict[Node, Node] = {}
    parts: dict[Node, Sequence[Node]] = {}
    locations = dict(graph.locations)
    for node in graph.nodes:
        operands = [final[n] for n in node.inputs]
        if node.op.name == "scan":
            operands = lying_as_read(node, operands)
            results = _Scan(node, operands).results()
            if results is not None:
                parts[node] = results
        if node.inputs and node.inputs[0] in parts:
            final[node] = parts[node.inputs[0]][node.attrs["index"]]
        else:
            final[node] = with_inputs(node, operands)
        if node in locations:
            locations.setdefault(final[node], locations[node])
    if all(node is made for node, made in final.items()) and not parts:
        return graph
    updates = [(state, final[value]) for state, value in graph.updates]
    made = graph.with_roots([final[n] for n in graph.outputs], updates)
    nodes = set(made.nodes)
    return replace(made, locations={n: place for n, place in locations.items() if n in nodes})


class _Scan:
    """A scan under change: its body, and what it takes from outside."""

    def __init__(self, node: Node, operands: Sequence[Node]) -> None:
        self.node = node
        self.body: Graph = node.attrs["body"]
        carried, scanned = node.attrs["carried"], node.attrs["scanned"]
        inputs = self.body.inputs
        self.carries = list(range(carried))
        self.starts = list(operands[:carried])
        self.rows = dict(zip(inputs[carried : carried + scanned], operands[carried:]))
        self.fixed = dict(zip(inputs[carried + scanned :], operands[carried + scanned :]))
        self.new: dict[Node, Node] = {}
        """Nodes of the body that are rows now, and the input that stands for them."""
        self.stacked: dict[Node, int] = {}
        """Values that are to be stacked, and their place among the results."""

    def results(self) -> list[Node] | None:
        """The results of the scan, changed; None if there is nothing to change."""
        self._hoist()
        sunk = self._sinkable()
        sunk |= self._sinkable_sums(sunk)
        if not self.new and not sunk:
            return None
        self.carries = [i for i in self.carries if i not in sunk]
        for position, value in enumerate(self.body.outputs[self.node.attrs["carried"] :]):
            self.stacked.setdefault(value, len(self.carries) + position)
        kept: list[Node] = [self.body.outputs[i] for i in self.carries]
        kept += self.body.outputs[self.node.attrs["carried"] :]
        for _, (product, _) in sunk.items():
            for factor in product.inputs:
                base, _ = _unpermuted(factor)
                if base not in self.rows and base not in self.stacked:
                    self.stacked[base] = len(kept)
                    kept.append(base)
        made = self._rebuilt(kept)
        return self._in_place(made, sunk)

    # ---- hoisting ------------------------------------------------------------------------

    def _hoist(self) -> None:
        for node in self.body.nodes:
            if node.op.contraction is None or node in self.rows:
                continue
            bases = [_unpermuted(operand)[0] for operand in node.inputs]
            known = all(base in self.rows or base in self.fixed for base in bases)
            if not known or not any(base in self.rows for base in bases):
                continue
            if self._too_large([node], self._bytes_of(bases)) or self._rows_a_step(node) >= ENOUGH:
                continue
            sequence = self._product(node, drop=False, results={})
            self.new[node] = input_node(self._free_name(), node.tensor_type)
            self.rows[node] = sequence

    def _rows_a_step(self, node: Node) -> int:
        """How many rows of a step meet the fixed operand of a product, if that is known."""
        left, right, out = labels_of(node)
        own, other = left, right
        if _unpermuted(node.inputs[0])[0] in self.fixed:
            own, other = right, left
        return _extent(node, [label for label in own if label in out and label not in other])

    def _free_name(self) -> str:
        taken = {n.attrs["name"] for n in (*self.body.inputs, *self.new.values())}
        return next(name for i in count() if (name := f"row{i}") not in taken)

    # ---- sinking -------------------------------------------------------------------------

    def _sinkable(self) -> dict[int, tuple[Node, tuple[int, ...] | None]]:
        """The carries that only add up products: the product, and how it is permuted."""
        found = {}
        for i, term in self._added_up():
            carry = self.body.inputs[i]
            product, order = _unpermuted(term)
            if product.op.contraction is None:
                continue
            bases = [_unpermuted(factor)[0] for factor in product.inputs]
            if any(base in self.fixed for base in bases) or _depth(product) >= ENOUGH:
                continue
            more = [base for base in bases if base not in self.rows]
            if not self._too_large(more, self._bytes_of([carry])):
                found[i] = (product, order)
        return found

    def _sinkable_sums(
        self, sunk: Mapping[int, tuple[Node, tuple[int, ...] | None]]
    ) -> dict[int, tuple[Node, tuple[int, ...] | None]]:
        """The same of sums over rows that are there after the loop in any case."""
        rows = {*self.rows, *self.body.outputs[self.node.attrs["carried"] :]}
        rows |= {
            _unpermuted(factor)[0] for product, _ in sunk.values() for factor in product.inputs
        }
        return {
            i: (term, None)
            for i, term in self._added_up()
            if term.op is REDUCE_SUM and term.inputs[0] in rows
        }

    def _added_up(self) -> Iterator[tuple[int, Node]]:
        """Carries to which something of their shape is added, and that nothing else reads."""
        for i in self.carries:
            carry, after = self.body.inputs[i], self.body.outputs[i]
            if after.op.name != "add" or self.body.users[carry] != (after,):
                continue
            if carry in self.body.outputs or self.body.outputs.count(after) > 1:
                continue
            if self.body.users[after] or after.inputs.count(carry) != 1:
                continue
            term = after.inputs[1] if after.inputs[0] is carry else after.inputs[0]
            if term.shape == carry.shape:
                yield i, term

    def _too_large(self, rows: Sequence[Node], base: int) -> bool:
        """Whether keeping these rows of all steps takes too much memory."""
        length = self.node.attrs["length"]
        sizes = [n.tensor_type.numel for n in rows]
        if not isinstance(length, int) or not all(isinstance(s, int) for s in sizes):
            return False
        extra = length * self._bytes_of(rows)
        return extra > LARGE and extra > MANY * base

    def _bytes_of(self, nodes: Sequence[Node]) -> int:
        sizes = [n.tensor_type.nbytes for n in nodes]
        return sum(size for size in sizes if isinstance(size, int))

    # ---- the new scan --------------------------------------------------------------------

    def _rebuilt(self, kept: Sequence[Node]) -> Node:
        """The scan with fewer carries, further rows and ``kept`` as its body's outputs."""
        carried = self.node.attrs["carried"]
        carries = [self.body.inputs[i] for i in self.carries]
        rows = [self.new[row] if row in self.new else row for row in self.rows]
        final = {n: n for n in (*carries, *rows, *self.fixed)}
        final.update(self.new)
        for node in topological(kept):
            if node not in final:
                final[node] = with_inputs(node, [final[n] for n in node.inputs])
        places = {final[n]: p for n, p in self.body.locations.items() if n in final}
        body = replace(
            self.body,
            inputs=(*carries, *rows, *self.fixed),
            outputs=tuple(final[n] for n in kept),
            locations=places,
            names={},
        )
        assert len(kept) >= len(self.body.outputs) - carried
        starts = [self.starts[i] for i in self.carries]
        return emit(
            self.node.op,
            *(*starts, *self.rows.values(), *self.fixed.values()),
            body=body,
            carried=len(carries),
            scanned=len(rows),
            length=self.node.attrs["length"],
            reverse=self.node.attrs["reverse"],
        )

    def _in_place(
        self, made: Node, sunk: Mapping[int, tuple[Node, tuple[int, ...] | None]]
    ) -> list[Node]:
        """What stands for each result of the old scan."""
        found: list[Node] = []
        carried = self.node.attrs["carried"]
        results = {value: NODES.get(made, index=index) for value, index in self.stacked.items()}
        for i in range(len(self.body.outputs)):
            if i in sunk:
                product, order = sunk[i]
                if product.op is REDUCE_SUM:
                    total = self._sum(product, results)
                else:
                    total = self._product(product, drop=True, results=results)
                if order is not None:
                    total = NODES.permute(total, axes=order)
                found.append(NODES.add(self.starts[i], total))
            elif i < carried:
                found.append(NODES.get(made, index=self.carries.index(i)))
            else:
                found.append(NODES.get(made, index=len(self.carries) + i - carried))
        return found

    def _sum(self, node: Node, results: Mapping[Node, Node]) -> Node:
        """The sum over all steps."""
        (term,) = node.inputs
        sequence = self.rows[term] if term in self.rows else results[term]
        axes = (0, *(1 + axis for axis in node.attrs["axes"]))
        return emit(node.op, sequence, **{**node.attrs, "axes": axes})

    def _product(self, node: Node, drop: bool, results: Mapping[Node, Node]) -> Node:
        """The product over all steps: of every step (stacked), or summed (``drop``)."""
        labels = labels_of(node)
        step = 1 + max((x for part in labels for x in part), default=-1)
        operands, sides = [], []
        for operand, own in zip(node.inputs, labels):
            base, order = _unpermuted(operand)
            names = own if order is None else tuple(own[order.index(a)] for a in range(len(own)))
            sequence = self.rows.get(base)
            if sequence is None:
                sequence = results.get(base)
            operands.append(self.fixed[base] if sequence is None else sequence)
            sides.append(names if sequence is None else (step, *names))
        out = labels[2] if drop else (step, *labels[2])
        total = {"dtype": node.dtype} if "dtype" in node.attrs else {}
        return emit(CONTRACT, *operands, left=sides[0], right=sides[1], out=out, **total)


def _unpermuted(node: Node) -> tuple[Node, tuple[int, ...] | None]:
    """What ``node`` is a permutation of, and its axes there (None: it is no permutation)."""
    order: tuple[int, ...] | None = None
    while node.op.name == "permute":
        axes = tuple(node.attrs["axes"])
        order = axes if order is None else tuple(axes[a] for a in order)
        node = node.inputs[0]
    return node, order


def _depth(node: Node) -> int:
    """How many products an element of a product's result is the sum of, if that is known."""
    left, _, out = labels_of(node)
    return _extent(node, [label for label in left if label not in out])


def _extent(node: Node, labels: Sequence[int]) -> int:
    """The product of the extents of ``labels`` in a product; 0 if one is not known."""
    found = 1
    for label in labels:
        own, operand = next(
            (own, operand) for own, operand in zip(labels_of(node), node.inputs) if label in own
        )
        extent = operand.shape[own.index(label)]
        found *= extent if isinstance(extent, int) else 0
    return found
