"""Graphs as JSON and back: ``graph.to_json()`` and ``Graph.from_json(text)``.

::

    {"format": "graphflow-graph", "version": 1,
     "graph": {"name": "main", "inputs": [0], "state": [], "outputs": [2], "updates": [],
               "nodes": [{"op": "input", "type": "f32[2]", "inputs": [], "attrs": {"name": "x"}},
                         {"op": "tanh", "type": "f32[2]", "inputs": [0], "attrs": {},
                          "name": "hidden", "location": ["model.py", 3, "fc1"]}, …]},
     "data": {"9f3c…": {"type": "f32[9]", "base64": "…"}}}

A node is named by its position; operands come before their users.  Attribute values are
JSON's own where JSON has them (integers, strings, true, false, null); a tuple is a list;
everything else is an object with one key that says what it is: ``{"float": "0.5"}`` (spelled
as in the IR's text, so NaN, infinities and -0.0 survive), ``{"dtype": "f32"}``, ``{"type":
"f32[2]"}``, ``{"dim": "2*batch"}``, ``{"array": "9f3c…"}`` (a key of ``data``), ``{"graph":
{…}}`` (a region).  Reading re-derives every type by the operations' own rules.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NoReturn

from graphflow.errors import GraphError
from graphflow.ir.dims import SymDim, parse_dim
from graphflow.ir.graph import Graph, Location
from graphflow.ir.literals import decode, encode, read_float, spell_float
from graphflow.ir.node import ArrayValue, Node, make_node
from graphflow.ir.op import lookup
from graphflow.ir.parser import read_type
from graphflow.ir.types import DType, TensorType, TupleType, dtype_named

FORMAT, VERSION = "graphflow-graph", 1
_DEEPEST = 64


# ---- writing -----------------------------------------------------------------------------


def to_json(graph: Graph, indent: int | None = None) -> str:
    """``graph`` as JSON text; ``indent`` as :func:`json.dumps` takes it."""
    data: dict[str, ArrayValue] = {}
    body = _graph(graph, data)
    table = {d: {"type": str(v.type), "base64": "".join(encode(v))} for d, v in data.items()}
    whole = {"format": FORMAT, "version": VERSION, "graph": body, "data": table}
    return json.dumps(whole, indent=indent, allow_nan=False)


def _graph(graph: Graph, data: dict[str, ArrayValue]) -> dict[str, Any]:
    position = {node: number for number, node in enumerate(graph.nodes)}
    rows = []
    for node in graph.nodes:
        row: dict[str, Any] = {
            "op": node.op.name,
            "type": str(node.type),
            "inputs": [position[n] for n in node.inputs],
            "attrs": {name: write_value(node.attrs[name], data) for name in sorted(node.attrs)},
        }
        if node in graph.names:
            row["name"] = graph.names[node]
        if node in graph.locations:
            place = graph.locations[node]
            row["location"] = [place.file, place.line, place.module]
        rows.append(row)
    return {
        "name": graph.name,
        "inputs": [position[n] for n in graph.inputs],
        "state": [position[n] for n in graph.state],
        "outputs": [position[n] for n in graph.outputs],
        "updates": [[position[cell], position[value]] for cell, value in graph.updates],
        "nodes": rows,
    }


def write_value(value: Any, data: dict[str, ArrayValue]) -> Any:
    """One attribute value; arrays go to ``data``.  TypeError for what has no form in JSON."""
    kind = value.__class__
    if kind in (bool, int, str) or value is None:
        return value
    if kind is tuple:
        return [write_value(item, data) for item in value]
    if kind is float:
        return {"float": spell_float(value)}
    if kind is ArrayValue:
        data[value.digest] = value
        return {"array": value.digest}
    if kind is Graph:
        return {"graph": _graph(value, data)}
    names = ((DType, "dtype"), (TensorType, "type"), (TupleType, "type"), (SymDim, "dim"))
    for cls, name in names:
        if isinstance(value, cls):
            return {name: value.short if isinstance(value, DType) else str(value)}
    raise TypeError(f"{value!r} has no form in JSON")


# ---- reading -----------------------------------------------------------------------------


def from_json(text: str) -> Graph:
    """The graph that :func:`to_json` wrote.

    Raises :class:`GraphError` for what is no JSON, another format, a newer version, and for
    every node that is not well formed, by its position.
    """
    try:
        whole = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise GraphError(f"the text is no JSON: {error}") from None
    if not isinstance(whole, dict) or whole.get("format") != FORMAT:
        found = whole.get("format") if isinstance(whole, dict) else None
        raise GraphError(f"the JSON is no graph: its format is {found!r}, not {FORMAT!r}")
    version = whole.get("version")
    if version.__class__ is not int or not 1 <= version <= VERSION:
        raise GraphError(
            f"the graph has version {version!r} of the JSON form; "
            f"this GraphFlow reads versions up to {VERSION}"
        )
    reader = _Reader(_table(whole.get("data", {})))
    return reader.graph(whole.get("graph"), "", 0).verify()


def _table(rows: Any) -> dict[str, ArrayValue]:
    """The arrays by their hashes, each checked against its own."""
    found: dict[str, ArrayValue] = {}
    if not isinstance(rows, dict):
        raise GraphError("'data' is no object")
    for digest, row in rows.items():
        place = f"data {digest}"
        type = read_type(_get(row, "type", str, place))
        if not isinstance(type, TensorType) or not type.is_static:
            raise GraphError(f"{place}: {type} is no type of an array")
        value = decode([_get(row, "base64", str, place)], type)
        if value.digest != digest:
            raise GraphError(f"{place}: the data does not have this hash (but {value.digest})")
        found[digest] = value
    return found


def _get(row: Any, key: str, kind: type, place: str) -> Any:
    """``row[key]``, of type ``kind``."""
    if not isinstance(row, dict) or key not in row:
        raise GraphError(f"{place}: {key!r} is missing")
    if row[key].__class__ is not kind:
        raise GraphError(f"{place}: {key!r} must be {kind.__name__}, not {row[key]!r:.60}")
    return row[key]


def read_value(value: Any, place: str) -> Any:
    """The attribute value that :func:`write_value` wrote without arrays."""
    return _Reader({}).value(value, place, 0)


class _Reader:
    """Reads graphs whose arrays are in ``data``."""

    def __init__(self, data: Mapping[str, ArrayValue]) -> None:
        self.data = data

    def graph(self, row: Any, path: str, depth: int) -> Graph:
        """One graph; ``path`` says of which region in messages."""
        if depth > _DEEPEST:
            raise GraphError(f"regions are nested more than {_DEEPEST} deep")
        nodes: list[Node] = []
        names: dict[Node, str] = {}
        locations: dict[Node, Location] = {}
        for number, entry in enumerate(_get(row, "nodes", list, f"{path}graph")):
            place = f"{path}node {number}"
            node = self.node(entry, nodes, place, depth)
            nodes.append(node)
            if "name" in entry:
                names[node] = _get(entry, "name", str, place)
            if "location" in entry:
                locations[node] = _location(entry["location"], place)
        place = f"{path}graph"
        ends = {
            part: tuple(_node(nodes, i, f"{path}{part}") for i in _get(row, part, list, place))
            for part in ("inputs", "state", "outputs")
        }
        updates = []
        for pair in _get(row, "updates", list, place):
            if not isinstance(pair, list) or len(pair) != 2:
                raise GraphError(f"{path}updates: {pair!r:.60} is no pair of nodes")
            updates.append(
                (_node(nodes, pair[0], f"{path}updates"), _node(nodes, pair[1], f"{path}updates"))
            )
        return Graph(
            **ends, updates=tuple(updates), name=_get(row, "name", str, place),
            locations=locations, names=names,
        )  # fmt: skip

    def node(self, row: Any, nodes: list[Node], place: str, depth: int) -> Node:
        """One node, whose operands are among ``nodes``."""
        name = _get(row, "op", str, place)
        operands = [_node(nodes, i, place) for i in _get(row, "inputs", list, place)]
        try:
            op = lookup(name)
            type = read_type(_get(row, "type", str, place))
            attrs = {
                key: self.value(value, f"{place}, {name}.{key}", depth)
                for key, value in _get(row, "attrs", dict, place).items()
            }
        except GraphError as error:
            text = str(error)
            raise GraphError(text if text.startswith(place) else f"{place}: {text}") from None
        return make_node(op, operands, attrs, type)

    def value(self, value: Any, place: str, depth: int) -> Any:
        """One attribute value."""
        if isinstance(value, list):
            return tuple(self.value(item, place, depth) for item in value)
        if value.__class__ in (bool, int, str) or value is None:
            return value
        if not isinstance(value, dict) or len(value) != 1:
            _fail(place, value)
        ((kind, held),) = value.items()
        if kind == "graph":
            return self.graph(held, f"{place}: ", depth + 1)
        if not isinstance(held, str):
            _fail(place, value)
        if kind == "array":
            if held not in self.data:
                raise GraphError(f"{place}: there is no data {held!r}")
            return self.data[held]
        read = {"float": read_float, "dtype": dtype_named, "type": read_type, "dim": parse_dim}
        if kind not in read:
            _fail(place, value)
        try:
            return read[kind](held)
        except (ValueError, RuntimeError) as error:
            raise GraphError(f"{place}: {held!r} is no {kind}: {error}") from None


def _fail(place: str, value: Any) -> NoReturn:
    raise GraphError(f"{place}: {value!r:.60} is no attribute value")


def _node(nodes: list[Node], index: Any, place: str) -> Node:
    if index.__class__ is not int or not 0 <= index < len(nodes):
        raise GraphError(
            f"{place}: uses node {index!r}, which does not come before it "
            f"(nodes stand in topological order, so a graph cannot have a cycle)"
        )
    return nodes[index]


def _location(value: Any, place: str) -> Location:
    good = isinstance(value, list) and len(value) == 3
    if not good or [x.__class__ for x in value] != [str, int, str]:
        raise GraphError(f"{place}: a location is [file, line, module], not {value!r:.60}")
    return Location(*value)
