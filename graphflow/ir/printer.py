"""Graphs as text: one typed line a node, read back by :mod:`graphflow.ir.parser`.

::

    graph main {
      %x: f32[8,4] = input(name="x")
      %w: f32[4,2] = state(name="w")  # model.py:12 fc
      %0: f32[8,2] = matmul(%x, %w)  # model.py:20 fc
      %1: f32[] = constant(0.5)
      %hidden: f32[8,2] = mul(%0, %1)  # model.py:21
      %2: f32[8] = reduce_sum(%hidden, axes=(1,))
      return %2
      update %w = %3
    }

Grammar (``[x]`` optional, ``{x}`` repeated; one statement a line, except that
base64 data runs over lines)::

    text      = graph {data}
    graph     = "graph" name "{" {node} return {update} "}"
    node      = label [":" type] "=" op "(" [argument {"," argument}] ")" {region}
    argument  = label | identifier "=" value | elements      (elements: constants only)
    region    = "@" identifier "=" graph                     (indented, after its node)
    return    = "return" [label {"," label}]
    update    = "update" label "=" label
    data      = "const<" hex ">" ":" type "=" "base64" {line of base64}
    label     = "%" (digits | name ["@" digits])
    name      = identifier with dots | JSON string
    type      = dtype "[" [dim {"," dim}] "]" | "(" [type {"," type}] ")"
    dim       = integer | polynomial such as 2*batch+1 or 3*(batch//2)
    value     = "true" | "false" | "none" | integer | float | string | dtype | dim
              | tensor type | "tuple" "(" types ")" | "(" {value ","} ")" | "@" identifier
              | "dim<" dim ">" | "array<" type ">" elements
    elements  = "const<" hex ">" | element | "[" {elements ","} "]"
    element   = "true" | "false" | integer | float | "complex(" float "," float ")"
    float     = decimal | "nan" | "inf" | "-inf" | "0x" hex  (the bits of a float)
    comment   = "#" anything.  After a node, "# file:line module" is its location.

Inputs and state are declared by their ``input`` and ``state`` nodes, in order.
A label that is no number is the node's name; ``@2`` tells apart the second
value of that name.  Constants of up to eight elements stand in line, larger
ones in the table at the end, named by a hash of their content.  Labels are
local to their graph: regions are closed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from graphflow.ir.dims import SymDim
from graphflow.ir.graph import Graph, Location
from graphflow.ir.literals import (
    RESERVED,
    encode,
    spell_element,
    spell_float,
    spell_name,
    spell_string,
)
from graphflow.ir.node import ArrayValue, Node
from graphflow.ir.op import Kind
from graphflow.ir.types import DType, TensorType, TupleType

INLINE_ELEMENTS = 8
_PLAIN = re.compile(r'[^\s"#:]+')


def print_graph(graph: Graph) -> str:
    """The text of ``graph``, as the module's docstring describes it."""
    data: dict[str, ArrayValue] = {}
    lines = list(_graph_lines(graph, "graph", "", data))
    for digest, value in data.items():
        lines.append(f"const<{digest}>: {value.type} = base64")
        lines.extend(f"  {line}" for line in encode(value))
    return "\n".join(lines) + "\n"


def _graph_lines(
    graph: Graph, head: str, indent: str, data: dict[str, ArrayValue]
) -> Iterator[str]:
    labels = label_nodes(graph)
    yield f"{indent}{head} {spell_name(graph.name)} {{"
    inner = indent + "  "
    for node in graph.nodes:
        yield inner + node_line(node, labels, graph.locations.get(node), data)
        for name, region in regions(node):
            yield from _graph_lines(region, f"@{name} = graph", inner + "  ", data)
    yield f"{inner}return {', '.join(labels[n] for n in graph.outputs)}".rstrip()
    for cell, value in graph.updates:
        yield f"{inner}update {labels.get(cell, '%?')} = {labels[value]}"
    yield f"{indent}}}"


def label_nodes(graph: Graph) -> dict[Node, str]:
    """A label for every node: its name, the name of a leaf, or the next number."""
    labels: dict[Node, str] = {}
    seen: dict[str, int] = {}
    names = graph.names
    number = 0
    for node in graph.nodes:
        name = names.get(node)
        if name is None and node.op.kind is Kind.LEAF:
            name = node.attrs.get("name")
        if name is None:
            labels[node] = f"%{number}"
            number += 1
            continue
        count = seen[name] = seen.get(name, 0) + 1
        labels[node] = f"%{spell_name(name)}" + (f"@{count}" if count > 1 else "")
    return labels


def node_line(
    node: Node,
    labels: dict[Node, str],
    location: Location | None = None,
    data: dict[str, ArrayValue] | None = None,
) -> str:
    """One node as text; arrays too large to stand in line are added to ``data``."""
    table = {} if data is None else data
    arguments = [labels.get(n, "%?") for n in node.inputs]
    value = node.attrs.get("value")
    if node.op.name == "constant" and isinstance(value, ArrayValue):
        arguments.append(_spell_array(value, table))
    else:
        attrs = node.attrs
        arguments += [f"{k}={_spell_value(attrs[k], k, table)}" for k in sorted(attrs)]
    line = f"{labels[node]}: {node.type} = {node.op.name}({', '.join(arguments)})"
    comment = spell_location(location) if location is not None else ""
    return f"{line}  # {comment}" if comment else line


def spell_attribute(node: Node, name: str) -> str:
    """One attribute as text; large arrays are ``const<hash>``, regions ``@label``."""
    return _spell_value(node.attrs[name], name, {})


def spell_array(value: ArrayValue) -> str:
    """The elements of an array of at most ``INLINE_ELEMENTS``."""
    return _spell_array(value, {})


def spell_location(location: Location) -> str:
    """``file:line module``; parts that hold blanks, quotes or colons stand in quotes."""
    place = ""
    if location.file or location.line:
        place = f"{_plain(location.file)}:{location.line}"
    return f"{place} {_plain(location.module)}".strip()


def _plain(text: str) -> str:
    if not text or (_PLAIN.fullmatch(text) and text.isprintable()):
        return text
    return spell_string(text)


def regions(node: Node) -> list[tuple[str, Graph]]:
    """The graphs among a node's attributes, under the labels the text gives them."""
    found: list[tuple[str, Graph]] = []
    for name in sorted(node.attrs):
        _collect(node.attrs[name], name, found)
    return found


def _collect(value: Any, label: str, found: list[tuple[str, Graph]]) -> None:
    if isinstance(value, Graph):
        found.append((label, value))
    elif value.__class__ is tuple:
        for i, item in enumerate(value):
            _collect(item, f"{label}.{i}", found)


def _spell_value(value: Any, label: str, data: dict[str, ArrayValue]) -> str:
    """An attribute; a graph inside it is the reference ``@label``."""
    kind = value.__class__
    if kind is bool or value is None:
        return str(value).lower()
    if kind is int:
        return str(value)
    if kind is str:
        return spell_string(value)
    if kind is float:
        return spell_float(value)
    if kind is tuple:
        items = [_spell_value(v, f"{label}.{i}", data) for i, v in enumerate(value)]
        return f"({items[0]},)" if len(items) == 1 else f"({', '.join(items)})"
    return _spell_object(value, label, data)


def _spell_object(value: Any, label: str, data: dict[str, ArrayValue]) -> str:
    if isinstance(value, DType):
        return value.short
    if isinstance(value, TensorType):
        return str(value)
    if isinstance(value, TupleType):
        return f"tuple({', '.join(_spell_object(t, label, data) for t in value.items)})"
    if isinstance(value, SymDim):
        text = str(value)
        return f"dim<{text}>" if value.symbols & RESERVED or "(" in text else text
    if isinstance(value, Graph):
        return f"@{label}"
    if isinstance(value, ArrayValue):
        return f"array<{value.type}>{_spell_array(value, data)}"
    raise TypeError(f"attribute {label}={value!r} has no spelling")


def _spell_array(value: ArrayValue, data: dict[str, ArrayValue]) -> str:
    array = value.array
    if array.size > INLINE_ELEMENTS:
        data[value.digest] = value
        return f"const<{value.digest}>"
    return _nested(array, value.type.dtype)


def _nested(array: Any, dtype: DType) -> str:
    if array.ndim == 0:
        return spell_element(array[()], dtype)
    if array.size == 0:
        return "[]"
    return f"[{', '.join(_nested(array[i], dtype) for i in range(array.shape[0]))}]"
