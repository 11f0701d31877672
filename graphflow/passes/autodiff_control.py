"""Gradients of operations that carry regions.

``cond`` differentiates by another ``cond`` over the gradients of its branches.
``scan`` runs a second time in the other direction: the forward scan is made to
also return the carry before each step and what is dear to compute again
(:mod:`graphflow.passes.saved_values`), and the backward scan takes the body's
gradient there.  Both are ordinary operations again, so they can be
differentiated further.  The number of steps of ``while_loop`` is not known
before it runs, so it has no reverse mode.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

from graphflow.errors import GraphError
from graphflow.ir.build import NODES, emit, input_node, splat
from graphflow.ir.graph import Graph
from graphflow.ir.node import Node, topological, with_inputs
from graphflow.ir.types import TensorType
from graphflow.passes.autodiff import Sweep
from graphflow.passes.rewrite import rewrite
from graphflow.passes.saved_values import dear_values
from graphflow.records import dataclass, replace


@dataclass(frozen=True)
class ControlGradient:
    """Cotangents of the operands (``None``: none flows), and the node that computes
    what the differentiated one did, with more results, if its gradient needs those."""

    cotangents: tuple[Node | None, ...]
    instead: Node | None = None


Parts: TypeAlias = Mapping[int, Node]
"""Cotangents of an operation's results, by position."""


def control_gradient(node: Node, parts: Parts, wanted: Sequence[bool]) -> ControlGradient:
    """The cotangents of the operands of ``node`` that are ``wanted``."""
    rule = _RULES.get(node.op.name)
    if rule is None:
        raise GraphError(
            f"{node.op.name} has no reverse mode: how often it runs is not known beforehand; "
            "use scan with a fixed length, or give max_trips, or stop_gradient its results"
        )
    return rule(node, parts, wanted)


def _cond(node: Node, parts: Parts, wanted: Sequence[bool]) -> ControlGradient:
    positions = [i - 1 for i, want in enumerate(wanted) if want]
    regions = {name: _branch(node.attrs[name], parts, positions) for name in ("then", "otherwise")}
    made = emit(node.op, *node.inputs, *(parts[i] for i in sorted(parts)), **regions)
    found: list[Node | None] = [None] * len(node.inputs)
    for index, position in enumerate(positions):
        found[position + 1] = NODES.get(made, index=index)
    return ControlGradient(tuple(found))


def _branch(body: Graph, parts: Parts, positions: Sequence[int]) -> Graph:
    """``body``'s inputs and the cotangents of its results → cotangents of its inputs."""
    fresh = _fresh(body, [parts[i].tensor_type for i in sorted(parts)])
    cotangents = dict(zip(sorted(parts), fresh))
    outputs, instead = region_cotangents(body, cotangents, [body.inputs[i] for i in positions])
    return _with_instead(replace(body, inputs=(*body.inputs, *fresh), outputs=outputs), instead)


def _scan(node: Node, parts: Parts, wanted: Sequence[bool]) -> ControlGradient:
    body: Graph = node.attrs["body"]
    carried, scanned = node.attrs["carried"], node.attrs["scanned"]
    split = carried + scanned
    more = _dear(node)
    forward = _also_returning(node, more)
    results = len(body.outputs)
    saved = [NODES.get(forward, index=results + i) for i in range(carried + len(more))]
    flowing = [i for i in range(carried) if _is_float(node.inputs[i])]
    fixed = [i for i in range(split, len(node.inputs)) if wanted[i]]
    rows = [i for i in range(carried, split) if wanted[i]]
    stacked = sorted(i for i in parts if i >= carried)
    start = [parts.get(i) or splat(0, node.inputs[i].tensor_type) for i in flowing]
    sums = [splat(0, node.inputs[i].tensor_type) for i in fixed]
    made = emit(
        node.op,
        *(*start, *sums),
        *(*node.inputs[carried:split], *saved, *(parts[i] for i in stacked)),
        *node.inputs[split:],
        body=_with_rows(
            _backward_body(body, carried, scanned, flowing, fixed, rows, stacked),
            more,
            len(start) + len(sums) + scanned + carried,
        ),
        carried=len(start) + len(sums),
        scanned=scanned + len(saved) + len(stacked),
        length=node.attrs["length"],
        reverse=not node.attrs["reverse"],
    )
    found: list[Node | None] = [None] * len(node.inputs)
    for index, position in enumerate([*flowing, *fixed, *rows]):
        if wanted[position]:
            found[position] = NODES.get(made, index=index)
    return ControlGradient(tuple(found), forward)


def with_saved(node: Node) -> Node:
    """The operation that computes what ``node`` does, and more if its gradient needs that.

    A scan also returns, stacked, the carry before each step and what is dear to compute again.
    """
    return _also_returning(node, _dear(node)) if node.op.name == "scan" else node


def _also_returning(node: Node, dear: Sequence[Node]) -> Node:
    """A scan that also returns its carries and ``dear`` values of its body, step by step."""
    body: Graph = node.attrs["body"]
    outputs = (*body.outputs, *body.inputs[: node.attrs["carried"]], *dear)
    return emit(node.op, *node.inputs, **{**node.attrs, "body": replace(body, outputs=outputs)})


def _dear(node: Node) -> tuple[Node, ...]:
    """What the body of a scan computes and its gradient had better not compute again."""
    body: Graph = node.attrs["body"]
    carried, scanned = node.attrs["carried"], node.attrs["scanned"]
    differentiable = [i for i, n in enumerate(body.inputs) if _is_float(n)]
    backward = _backward_body(
        body,
        carried,
        scanned,
        [i for i in differentiable if i < carried],
        [i for i in differentiable if i >= carried + scanned],
        [i for i in differentiable if carried <= i < carried + scanned],
        [i for i in range(carried, len(body.outputs)) if _is_float(body.outputs[i])],
    )
    return dear_values(body, backward, carried + scanned, node.attrs["length"])


def _with_rows(body: Graph, values: Sequence[Node], place: int) -> Graph:
    """``body`` with an input for each of ``values`` that it computes, from ``place`` on."""
    if not values:
        return body
    final = dict(zip(values, _fresh(body, [n.tensor_type for n in values])))
    rows = tuple(final.values())
    for node in topological(body.outputs):
        if node not in final:
            final[node] = with_inputs(node, [final[n] for n in node.inputs])
    return replace(
        body,
        inputs=(*body.inputs[:place], *rows, *body.inputs[place:]),
        outputs=tuple(final[n] for n in body.outputs),
        locations={final[n]: found for n, found in body.locations.items() if n in final},
        names={},
    )


def _backward_body(
    body: Graph,
    carried: int,
    scanned: int,
    flowing: Sequence[int],
    fixed: Sequence[int],
    rows: Sequence[int],
    stacked: Sequence[int],
) -> Graph:
    """One step backwards.

    Takes the cotangents of the carry (those ``flowing``) and the sums so far of
    the ``fixed`` operands' cotangents; the items of this step, the carry before
    it and the cotangents of its ``stacked`` results; the fixed operands.
    Returns the cotangents of the carry before, the new sums, and the cotangents
    of this step's ``rows``.
    """
    split = carried + scanned
    inputs, outputs = body.inputs, body.outputs
    types = [inputs[i].tensor_type for i in (*flowing, *fixed)]
    fresh = _fresh(body, [*types, *(outputs[i].tensor_type for i in stacked)])
    sums = fresh[len(flowing) : len(types)]
    incoming = dict(zip((*flowing, *stacked), (*fresh[: len(flowing)], *fresh[len(types) :])))
    wrt = [inputs[i] for i in (*flowing, *fixed, *rows)]
    found, instead = region_cotangents(body, incoming, wrt)
    totals = [NODES.add(s, c) for s, c in zip(sums, found[len(flowing) : len(types)])]
    takes = (
        *fresh[: len(types)],
        *(*inputs[carried:split], *inputs[:carried], *fresh[len(types) :]),
        *inputs[split:],
    )
    results = (*found[: len(flowing)], *totals, *found[len(types) :])
    return _with_instead(replace(body, inputs=takes, outputs=results), instead)


def region_cotangents(
    body: Graph, cotangents: Mapping[int, Node], wrt: Sequence[Node]
) -> tuple[tuple[Node, ...], Mapping[Node, Node]]:
    """Cotangents of the inputs ``wrt`` of a region (zeros where none flows), given
    those of its outputs by position; and what to compute instead of which node."""
    sweep = Sweep(body.nodes, wrt)
    for position, cotangent in cotangents.items():
        sweep.seed(body.outputs[position], cotangent)
    sweep.run()
    return tuple(sweep.result(leaf) for leaf in wrt), sweep.instead


def _with_instead(graph: Graph, instead: Mapping[Node, Node]) -> Graph:
    return compute_instead(graph, instead) if instead else graph


def compute_instead(graph: Graph, instead: Mapping[Node, Node]) -> Graph:
    """``graph`` with results taken from the values of ``instead``, not from its keys.

    The results of a key come first among those of its value.
    """

    def rule(node: Node) -> Node | None:
        if node.op.name != "get":
            return None
        other = instead.get(node.inputs[0])
        return None if other is None else NODES.get(other, index=node.attrs["index"])

    return rewrite(graph, rule, into_regions=False)


def _fresh(body: Graph, types: Sequence[TensorType]) -> list[Node]:
    """New inputs of the given types, named apart from those of ``body``."""
    taken = {n.attrs["name"] for n in body.inputs}
    found: list[Node] = []
    number = 0
    for type in types:
        while f"ct{number}" in taken:
            number += 1
        found.append(input_node(f"ct{number}", type))
        number += 1
    return found


def _is_float(node: Node) -> bool:
    return node.dtype.is_floating_point


_Rule: TypeAlias = Callable[[Node, Parts, Sequence[bool]], ControlGradient]
_RULES: Mapping[str, _Rule] = {"cond": _cond, "scan": _scan}
