"""Results of scans, branches and kernels that nobody takes, and operands that no region reads."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from graphflow.ir.build import emit
from graphflow.ir.graph import Graph
from graphflow.ir.node import Node, topological, with_inputs
from graphflow.ir.op import Kind
from graphflow.ir.types import TupleType
from graphflow.records import NamedTuple, replace


class Kept(NamedTuple):
    """What stays of an operation: positions of results and operands, and its attributes."""

    results: Sequence[int]
    operands: Sequence[int]
    attrs: Mapping[str, Any]


Rules: TypeAlias = Mapping[str, Callable[[Node, "set[int]"], Kept]]
"""For names of operations: what stays of one of which so many results are taken."""


def trim(graph: Graph) -> Graph:
    """``graph`` without those of scans and branches, in regions too; the same object if there
    are none."""
    if not any(form.op.name in _RULES for form in graph.forms):
        return graph
    return _trimmed(graph, _RULES)


def without_dead_results(graph: Graph) -> Graph:
    """``graph`` whose kernels store only what is read; the same object if they do already."""
    return _trimmed(graph, {"fused": _fused})


def _trimmed(graph: Graph, rules: Rules) -> Graph:
    final: dict[Node, Node] = {}
    kept: dict[Node, Kept] = {}
    locations, names = dict(graph.locations), dict(graph.names)
    for node in graph.nodes:
        found = _kept(graph, node, rules)
        source = node.inputs[0] if node.inputs else None
        if found is not None:
            kept[node] = found
            operands = [final[node.inputs[i]] for i in found.operands]
            made = emit(node.op, *operands, **found.attrs)
        elif source in kept:
            index = kept[source].results.index(node.attrs["index"])
            made = final[source]
            if isinstance(made.type, TupleType):
                made = emit(node.op, made, index=index)
        else:
            made = with_inputs(node, [final[n] for n in node.inputs])
        final[node] = made
        if made is not node and node in locations:
            locations.setdefault(made, locations[node])
        if made is not node and node in names:
            names.setdefault(made, names[node])
    if not kept:
        return graph
    outputs = [final[n] for n in graph.outputs]
    updates = [(s, final[v]) for s, v in graph.updates]
    return graph.with_roots(outputs, updates).with_own(locations, names)


def _kept(graph: Graph, node: Node, rules: Rules) -> Kept | None:
    """What stays of ``node``; None if it has no dead parts."""
    rule = rules.get(node.op.name)
    if rule is None or not isinstance(node.type, TupleType):
        return None
    taken = {user.attrs["index"] for user in graph.users[node]}
    found = rule(node, taken)
    same = len(found.operands) == len(node.inputs) and all(
        found.attrs[k] is v for k, v in node.attrs.items() if isinstance(v, Graph)
    )
    return None if same else found


def _scan(node: Node, taken: set[int]) -> Kept:
    body: Graph = node.attrs["body"]
    carried, scanned = node.attrs["carried"], node.attrs["scanned"]
    live = set(taken)
    while True:
        read = set(topological([body.outputs[i] for i in sorted(live)]))
        more = {i for i in range(carried) if body.inputs[i] in read} - live
        if not more:
            break
        live |= more
    operands = [
        i for i, n in enumerate(body.inputs) if (i in live if i < carried else n in read)
    ]  # fmt: skip
    results = sorted(live)
    attrs = {
        **node.attrs,
        "body": _region(body, operands, results),
        "carried": sum(i < carried for i in operands),
        "scanned": sum(carried <= i < carried + scanned for i in operands),
    }
    return Kept(results, operands, attrs)


def _cond(node: Node, taken: set[int]) -> Kept:
    regions = [node.attrs["then"], node.attrs["otherwise"]]
    results = sorted(taken)
    read = [set(topological([r.outputs[i] for i in results])) for r in regions]
    used = [
        i
        for i in range(len(node.inputs) - 1)
        if any(r.inputs[i] in found for r, found in zip(regions, read))
    ]
    then, otherwise = (_region(r, used, results) for r in regions)
    return Kept(results, [0, *(i + 1 for i in used)], {"then": then, "otherwise": otherwise})


def _fused(node: Node, taken: set[int]) -> Kept:
    body: Graph = node.attrs["body"]
    results = sorted(taken)
    if len(results) == len(body.outputs):
        return Kept(results, range(len(node.inputs)), node.attrs)
    nodes = topological([body.outputs[i] for i in results])
    dead = set(topological(body.outputs)) - set(nodes)
    # What no node ever read is there for the order, and stays.
    operands = [i for i, n in enumerate(body.inputs) if n not in dead]
    multiplies = any(n.op.kind is Kind.CONTRACTION for n in nodes)
    kind = node.attrs["kind"] if multiplies else "loop"
    return Kept(results, operands, {"kind": kind, "body": _region(body, operands, results)})


def _region(body: Graph, operands: Sequence[int], results: Sequence[int]) -> Graph:
    """The region with these inputs and outputs only, trimmed itself."""
    if len(operands) < len(body.inputs) or len(results) < len(body.outputs):
        body = replace(
            body,
            inputs=tuple(body.inputs[i] for i in operands),
            outputs=tuple(body.outputs[i] for i in results),
        )
        body = body.with_own(body.locations, body.names)
    return trim(body)


_RULES: Rules = {"scan": _scan, "cond": _cond}
