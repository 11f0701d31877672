"""A graph as a Python function: ``graph.to_python()``.

The text is a module: ``SPECS`` (what ``gf.trace`` takes), ``STATE`` (tensors by name, zeros
until given values), regions as text, and a function, a line a node.  Tracing the function
with ``SPECS`` gives the same graph.  Arithmetic and elementwise functions are spelled as a user
would; what has attributes is called as the primitive it is (:mod:`graphflow.primitives`).
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterator, Sequence
from typing import Any

from graphflow.errors import GraphError
from graphflow.ir.dims import SymDim
from graphflow.ir.graph import Graph
from graphflow.ir.literals import encode
from graphflow.ir.node import ArrayValue, Node
from graphflow.ir.op import Kind
from graphflow.ir.printer import (
    INLINE_ELEMENTS,
    label_nodes,
    regions,
    spell_array,
    spell_attribute,
    spell_location,
)
from graphflow.ir.types import DType, TensorType

INFIX = {"add": "+", "sub": "-", "mul": "*", "div": "/"}
"""Python's operators, as :mod:`graphflow.ir.build` gives them to nodes."""
PLAIN = frozenset(
    "abs ceil cos eq erf exp expm1 floor ge gt le log log1p lt maximum minimum ne neg relu "
    "rsqrt sigmoid sign sin sqrt tanh where".split()
)
"""Functions of ``gf`` that are one primitive each on floating-point operands of one dtype."""
UNNAMED = frozenset({"u32", "u64"})
"""Dtypes that ``gf`` has no name for."""
_RESERVED = {"gf", "p", "SPECS", "STATE", *keyword.kwlist}


def to_python(graph: Graph) -> str:
    """The text of the module.

    Raises :class:`GraphError` for state with symbolic extents: a tensor has none.
    """
    for node in graph.state:
        if not node.tensor_type.is_static:
            raise GraphError(
                f"state {node.attrs['name']!r} of type {node.type} has no form in Python: "
                "tensors that a trace captures have extents that are known"
            )
    return "\n".join(_Writer(graph).lines()) + "\n"


class _Writer:
    """Names of one graph's values in Python, and the lines that use them."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.taken = set(_RESERVED)
        self.function = self.unique(_identifier(graph.name))
        labels = label_nodes(graph)
        self.names = {n: self.unique(_identifier(labels[n][1:])) for n in graph.nodes}
        self.region_names: dict[tuple[Node, str], str] = {}
        self.symbols = self.find_symbols()

    def unique(self, stem: str) -> str:
        """``stem``, with a number if it is taken."""
        name, number = stem, 2
        while name in self.taken:
            name, number = f"{stem}_{number}", number + 1
        self.taken.add(name)
        return name

    def find_symbols(self) -> dict[str, tuple[str, str]]:
        """For every symbol that is an extent of an input: a name, and where it is read."""
        found: dict[str, tuple[str, str]] = {}
        for node in self.graph.inputs:
            for axis, extent in enumerate(node.shape):
                if isinstance(extent, SymDim) and str(extent) in extent.symbols:
                    text = f"{self.names[node]}.shape[{axis}]"
                    if str(extent) not in found:
                        found[str(extent)] = (self.unique(_identifier(str(extent))), text)
        return found

    # ---- the module --------------------------------------------------------------------

    def lines(self) -> Iterator[str]:
        """The whole."""
        graph = self.graph
        yield f"# Graph {graph.name!r} in Python: gf.trace({self.function}, *SPECS) gives it again."
        yield from ("import graphflow as gf", "from graphflow import primitives as p", "")
        yield "SPECS = ("
        yield from (f"    {_spec(node)}," for node in graph.inputs)
        yield ")"
        if graph.state:
            yield "STATE = p.State({"
            for node in graph.state:
                yield f'    {node.attrs["name"]!r}: "{node.type}",'
            yield "})"
        for node in graph.nodes:
            for label, region in regions(node):
                stem = f"{self.names[node]}_{label}".upper()
                name = self.region_names[node, label] = self.unique(_identifier(stem))
                yield f"{name} = p.region({_quoted(str(region))})"
        yield from ("", "")
        yield from self.body()

    def body(self) -> Iterator[str]:
        """The function."""
        graph, names = self.graph, self.names
        yield f"def {self.function}({', '.join(names[n] for n in graph.inputs)}):"
        types = ", ".join(str(n.type) for n in graph.inputs)
        found = ", ".join(str(n.type) for n in graph.outputs)
        yield f'    """({types}) -> ({found})."""'
        if graph.state:
            yield "    ("
            yield from (f"        {names[n]}," for n in graph.state)
            yield "    ) = STATE.read()"
        for name, place in self.symbols.values():
            yield f"    {name} = {place}"
        for node in graph.nodes:
            if node.op.name not in ("input", "state"):
                where = graph.locations.get(node)
                comment = f"  # {spell_location(where)}" if where is not None else ""
                yield f"    {names[node]} = {self.value(node)}{comment}"
        if graph.updates:
            yield "    STATE.write({"
            for cell, value in graph.updates:
                yield f"        {cell.attrs['name']!r}: {names[value]},"
            yield "    })"
        outputs = graph.outputs
        own = len(set(outputs)) == len(outputs) and all(n.op.kind is not Kind.LEAF for n in outputs)
        listed = ", ".join(names[n] for n in outputs)
        if own and outputs:
            yield f"    return {listed}"
        else:
            yield f"    return p.results([{listed}])"

    # ---- one node ----------------------------------------------------------------------

    def value(self, node: Node) -> str:
        """The expression of one node."""
        held = node.attrs.get("value")
        if isinstance(held, ArrayValue) and not node.inputs:
            return _constant(held)
        inputs = [self.names[n] for n in node.inputs]
        if node.inputs and not isinstance(node.inputs[0].type, TensorType):
            return f"{inputs[0]}[{node.attrs['index']}]"  # an item of several results
        if not node.attrs and _floating(node):
            if node.op.name in INFIX:
                return f" {INFIX[node.op.name]} ".join(inputs)
            if node.op.name in PLAIN:
                return f"gf.{node.op.name}({', '.join(inputs)})"
        attrs = [f"{name}={self.attribute(node, name)}" for name in sorted(node.attrs)]
        name = node.op.name
        return f"p.{name}({', '.join([*inputs, *attrs])})"

    def attribute(self, node: Node, name: str) -> str:
        """An attribute as an expression."""
        text = self.expression(node, node.attrs[name], name)
        return text if text is not None else f"p.value({spell_attribute(node, name)!r})"

    def expression(self, node: Node, value: Any, label: str) -> str | None:
        """``value`` in Python; None where only the IR's spelling will do."""
        kind = value.__class__
        if kind in (bool, int, str) or value is None:
            return repr(value)
        if kind is float:
            plain = value == value and abs(value) != float("inf")
            return repr(value) if plain else None
        if kind is tuple:
            items = [self.expression(node, v, f"{label}.{i}") for i, v in enumerate(value)]
            if any(item is None for item in items):
                return None
            return _tuple([str(item) for item in items])
        if isinstance(value, DType) and value.short not in UNNAMED:
            return f"gf.{value.name}"
        if isinstance(value, Graph):
            return self.region_names[node, label]
        if isinstance(value, SymDim) and all(s in self.symbols for s in value.symbols):
            return re.sub(r"[A-Za-z_]\w*", lambda m: self.symbols[m[0]][0], str(value))
        return None


def _tuple(items: Sequence[str]) -> str:
    return f"({', '.join(items)}{',' if len(items) == 1 else ''})"


def _identifier(text: str) -> str:
    """``text`` as a Python name."""
    name = re.sub(r"\W", "_", text, flags=re.ASCII)
    if not name or name[0].isdigit():
        name = f"t{name}"
    return f"{name}_" if keyword.iskeyword(name) else name


def _floating(node: Node) -> bool:
    """True when ``gf``'s promotion does nothing: all operands but conditions are one float."""
    dtypes = {n.dtype for n in node.inputs if isinstance(n.type, TensorType)}
    if node.op.name == "where":
        dtypes = {n.dtype for n in node.inputs[1:]}
    return len(dtypes) == 1 and next(iter(dtypes)).short in ("f32", "f64")


def _spec(node: Node) -> str:
    name, shape = node.attrs["name"], node.shape
    plain = all(not isinstance(d, SymDim) or str(d) in d.symbols for d in shape)
    if plain and node.dtype.short not in UNNAMED:
        extents = [repr(str(d)) if isinstance(d, SymDim) else str(d) for d in shape]
        return f"gf.TensorSpec({_tuple(extents)}, gf.{node.dtype.name}, name={name!r})"
    return f'p.spec({name!r}, "{node.type}")'


def _constant(value: ArrayValue) -> str:
    if value.array.size <= INLINE_ELEMENTS:
        return f'p.constant("{value.type}", "{spell_array(value)}")'
    lines = "\n".join(encode(value))
    return f'p.data("{value.type}", """\n{lines}\n""")'


def _quoted(text: str) -> str:
    """Lines of text as a string literal, readable where possible."""
    return repr(text) if '"""' in text else f'r"""\n{text}"""'
