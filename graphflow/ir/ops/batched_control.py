"""Control flow applied to all entries of a batch at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphflow.ir import build
from graphflow.ir.entries import Walk, apply_graph, varying
from graphflow.ir.graph import Graph
from graphflow.ir.node import topological
from graphflow.ir.op import Application, Builder, Entries, OpDef
from graphflow.ir.ops.batches import aligned, repeated
from graphflow.ir.types import TensorType


def both_branches(b: Builder, op: OpDef, n: Application, entries: Entries) -> Any:
    """Both branches are computed, and each entry's own is chosen."""
    flag, *operands = n.inputs
    sides = [
        apply_graph(b, n.attrs[key], operands, entries.batched[1:], entries)
        for key in ("then", "otherwise")
    ]
    found = []
    for (then, own), (otherwise, other) in zip(*sides, strict=True):
        batched = (entries.batched[0], own, other)
        if not any(batched):
            then, batched = repeated(b, then, entries.size), (False, True, False)
        three = Application((flag, then, otherwise), n.out, {})
        found.append(b.where(*aligned(b, three, Entries(entries.size, batched))))
    return tuple(found)


def all_steps(b: Builder, op: OpDef, n: Application, entries: Entries) -> Any:
    """Each step is taken for all entries; items and results lie step by step."""
    attrs, carried = n.attrs, n.attrs["carried"]
    last = carried + attrs["scanned"]
    batched = _carried_flags(attrs["body"], entries, carried)
    operands = list(n.inputs)
    for i, own in enumerate(entries.batched):
        if i < carried and batched[i] and not own:
            operands[i] = repeated(b, operands[i], entries.size)
        elif carried <= i < last and own:
            operands[i] = _exchanged(b, operands[i])
    body, rows = _body(attrs["body"], batched, carried, entries)
    results = list(b.several(op.name, *operands, **{**attrs, "body": body}))
    for i, own in enumerate((*batched[:carried], *rows)):
        if not own:
            results[i] = repeated(b, results[i], entries.size)
        elif i >= carried:
            results[i] = _exchanged(b, results[i])
    return tuple(results)


def _exchanged(b: Builder, x: Any) -> Any:
    return b.permute(x, axes=(1, 0, *range(2, len(x.shape))))


def _carried_flags(body: Graph, entries: Entries, carried: int) -> list[bool]:
    """Which operands of the body hold entries: what is carried may come to."""
    flags, order = list(entries.batched), topological(body.outputs)
    drawn = entries.randomness != "same"
    while True:
        own = {x for x, flag in zip(body.inputs, flags, strict=True) if flag}
        inside = varying(order, own, lambda node: drawn and node.op.draws)
        found = [
            flag or out in inside for flag, out in zip(flags, body.outputs[:carried], strict=False)
        ]
        if found == flags[:carried]:
            return flags
        flags[:carried] = found


def _body(
    body: Graph, batched: Sequence[bool], carried: int, entries: Entries
) -> tuple[Graph, list[bool]]:
    """The body for all entries, and which of the results that are stacked hold them."""
    takes, known = [], {}
    for x, own in zip(body.inputs, batched, strict=True):
        type = x.tensor_type
        shape = (entries.size, *type.shape) if own else type.shape
        takes.append(build.input_node(x.attrs["name"], TensorType(type.dtype, shape)))
        known[x] = takes[-1], own
    results = Walk(build.NODES, entries.size, entries.randomness, known).of(body.outputs)
    outputs = [
        repeated(build.NODES, value, entries.size) if flag and not own else value
        for (value, own), flag in zip(results[:carried], batched, strict=False)
    ]
    rows = results[carried:]
    made = (*outputs, *(value for value, _ in rows))
    return Graph(tuple(takes), made, name=body.name), [own for _, own in rows]
