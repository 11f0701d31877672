"""Graphs in Graphviz's DOT language: ``graph.to_dot()``.

One box a node, coloured by kind; nodes of a module stand in that module's cluster, the
nodes of a region in a cluster beside the node that has it.
"""

from __future__ import annotations

from collections.abc import Iterator

from graphflow.ir.graph import Graph
from graphflow.ir.node import Node
from graphflow.ir.op import Kind
from graphflow.ir.printer import label_nodes, regions

COLOURS = {
    Kind.LEAF: "#dfe7ef", Kind.ELEMENTWISE: "#d9f0d3", Kind.GENERATOR: "#d9f0d3",
    Kind.VIEW: "#f2f2f2", Kind.GATHER: "#fde8c9", Kind.SCATTER: "#fde8c9",
    Kind.REDUCTION: "#fbd5d5", Kind.LINE: "#fbd5d5", Kind.CONTRACTION: "#d6dcf7",
    Kind.CONTROL: "#e9d8f4", Kind.OPAQUE: "#f5c6c6",
}  # fmt: skip
"""Fill colour of every kind of operation."""


def to_dot(graph: Graph) -> str:
    """The text of a DOT file, to be drawn with ``dot -Tsvg``."""
    lines = [
        f"digraph {_quoted(graph.name)} {{",
        "  rankdir=TB;",
        '  node [shape=box, style="rounded,filled", fontname="Helvetica", fontsize=10];',
        '  edge [color="#888888", fontname="Helvetica", fontsize=8];',
        *_body(graph, "n", "  "),
        "}",
    ]
    return "\n".join(lines) + "\n"


def _body(graph: Graph, prefix: str, indent: str) -> Iterator[str]:
    labels = label_nodes(graph)
    ids = {node: f"{prefix}{number}" for number, node in enumerate(graph.nodes)}
    modules: dict[str, list[str]] = {}
    for node in graph.nodes:
        place = graph.locations.get(node)
        line = _box(graph, node, ids[node], labels[node])
        modules.setdefault(place.module if place is not None else "", []).append(line)
    for number, (module, lines) in enumerate(modules.items()):
        if not module:
            yield from (indent + line for line in lines)
            continue
        yield f"{indent}subgraph cluster_{prefix}m{number} {{"
        yield f'{indent}  label={_quoted(module)}; style="rounded,dashed"; color="#999999";'
        yield from (f"{indent}  {line}" for line in lines)
        yield f"{indent}}}"
    for node in graph.nodes:
        many = len(node.inputs) > 1
        for operand, source in enumerate(node.inputs):
            label = f" [label={operand}]" if many else ""
            yield f"{indent}{ids[source]} -> {ids[node]}{label};"
        for name, region in regions(node):
            inner = f"{ids[node]}_{name.replace('.', '_')}_"
            yield f"{indent}subgraph cluster_{inner} {{"
            yield f'{indent}  label={_quoted(f"{labels[node]} {name}")}; color="#9467bd";'
            yield from _body(region, inner, indent + "  ")
            yield f"{indent}}}"
            if region.nodes:
                yield f"{indent}{inner}0 -> {ids[node]} [style=dotted, arrowhead=none];"
    for number, (cell, value) in enumerate(graph.updates):
        yield (
            f"{indent}{ids[value]} -> {ids[cell]} "
            f'[style=dashed, constraint=false, label="update {number}"];'
        )


def _box(graph: Graph, node: Node, id: str, label: str) -> str:
    text = f"{label}\n{node.op.name}\n{node.type}"
    thick = ", penwidth=2.5" if node in graph.outputs else ""
    place = graph.locations.get(node)
    tip = f", tooltip={_quoted(str(place))}" if place is not None else ""
    colour = COLOURS[node.op.kind]
    return f'{id} [label={_quoted(text)}, fillcolor="{colour}"{thick}{tip}];'


def _quoted(text: str) -> str:
    """``text`` as a DOT string."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
