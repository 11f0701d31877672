"""Read the text that :mod:`graphflow.ir.printer` writes (its docstring has the grammar).

The reader looks at one line at a time, never evaluates anything, checks every
type it is told against the operation's own rule, and names the line in every
error.  A type may be left out; it is then inferred.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from graphflow.errors import GraphError
from graphflow.ir.dims import Dim, parse_dim
from graphflow.ir.graph import Graph, Location
from graphflow.ir.literals import (
    RESERVED,
    array_of,
    decode,
    read_element,
    read_float,
)
from graphflow.ir.node import ArrayValue, Node, make_node
from graphflow.ir.op import Kind, lookup
from graphflow.ir.tokens import STRING, Line
from graphflow.ir.types import (
    DTYPES,
    DType,
    TensorType,
    TupleType,
    Type,
    dtype_named,
    float32,
    float64,
)

_LABEL = re.compile(rf"%(?:(\d+)|(?:({STRING})|([A-Za-z_0-9.]+))(?:@\d+)?)")
_WORD = rf'{STRING}|[^\s"\#:]+'
_LOCATION = re.compile(rf"\#\s*(?:({_WORD})?:(-?\d{{1,18}}))?\s*({_WORD})?\s*")
_TENSOR = re.compile(r"([a-z]+\d*)\[([^\]]*)\]")
_DATA = re.compile(r"const<([0-9a-f]*)>\s*:\s*(\S+)\s*=\s*base64\s*")
_DTYPE_NAMES = frozenset(d.short for d in DTYPES)
_DEEPEST = 64


def parse_graph(text: str) -> Graph:
    """The graph that ``text`` describes; :class:`GraphError` names a bad line."""
    lines = text.split("\n")
    end = next((i for i, line in enumerate(lines) if line.startswith("const<")), len(lines))
    reader = _Reader(lines, end)
    reader.read_data()
    line = reader.next_line("a graph")
    line.expect("graph")
    graph = reader.graph(line, 0)
    if reader.skip_blank():
        reader.next_line("").fail("the end of the text after the closing brace")
    return graph


def read_value(line: Line) -> Any:
    """One attribute value, as in a node's line, read from ``line``."""
    return _Reader([], 0).value(line)


def read_type(text: str) -> Type:
    """A type, from its spelling."""
    line = Line(text, 1)
    found = _Reader([], 0).type(line)
    line.end()
    return found


def read_array(text: str, type: TensorType) -> ArrayValue:
    """The array of ``type`` whose elements are spelled in ``text``."""
    line = Line(text, 1)
    found = _Reader([], 0).array(line, type)
    line.end()
    return found


class _Scope:
    """What one graph's lines have defined so far."""

    def __init__(self) -> None:
        self.nodes: dict[str, Node] = {}
        self.inputs: list[Node] = []
        self.state: list[Node] = []
        self.names: dict[Node, str] = {}
        self.locations: dict[Node, Location] = {}

    def find(self, line: Line) -> Node:
        """The node whose label comes next."""
        token = line.peek()
        node = self.nodes.get(token)
        if node is None:
            if token[:1] != "%":
                line.fail("a label such as %0")
            line.error(f"{token} is not defined above this line")
        line.at += 1
        return node

    def define(self, line: Line, label: str, node: Node) -> None:
        """Enter ``node`` under ``label``, with the label's name and the line's location."""
        if label in self.nodes:
            line.error(f"{label} is defined twice")
        self.nodes[label] = node
        number, quoted, plain = _LABEL.fullmatch(label).groups()  # type: ignore[union-attr]
        if number is None:
            name = line.string(quoted) if quoted else plain
            if node.op.kind is not Kind.LEAF or node.attrs.get("name") != name:
                self.names.setdefault(node, name)
        if node.op.name == "input":
            self.inputs.append(node)
        elif node.op.name == "state":
            self.state.append(node)


class _Reader:
    """The lines of a text, its data table, and what repeated spellings mean."""

    def __init__(self, lines: list[str], end: int) -> None:
        self.lines, self.end, self.at = lines, end, 0
        self.data: dict[str, ArrayValue] = {}
        self.types: dict[str, TensorType] = {}
        self.places: dict[str, Location | None] = {}

    def read_data(self) -> None:
        """Read the table of arrays that ends the text."""
        at = self.end
        while at < len(self.lines):
            line = Line(self.lines[at], at + 1)
            first = at = at + 1
            while at < len(self.lines) and not self.lines[at].startswith("const<"):
                at += 1
            match = _DATA.fullmatch(line.text)
            if match is None:
                line.error("expected const<hash>: type = base64")
            kind = self.tensor_type(match[2], line)
            try:
                value = decode((x.strip() for x in self.lines[first:at]), kind)
            except GraphError as error:
                line.error(str(error))
            if value.digest != match[1]:
                line.error(f"the data does not have the hash {match[1]} (but {value.digest})")
            self.data[value.digest] = value

    def skip_blank(self) -> bool:
        """Move to the next line that says something; false if there is none."""
        while self.at < self.end:
            text = self.lines[self.at].lstrip()
            if text and text[0] != "#":
                return True
            self.at += 1
        return False

    def next_line(self, expected: str) -> Line:
        """The next line that says something."""
        if not self.skip_blank():
            raise GraphError(f"line {self.end}: expected {expected}, found the end of the text")
        self.at += 1
        return Line(self.lines[self.at - 1], self.at)

    def graph(self, line: Line, depth: int) -> Graph:
        """A graph whose first line is read up to the word ``graph``."""
        if depth > _DEEPEST:
            line.error(f"regions are nested more than {_DEEPEST} deep")
        name = self.name(line)
        line.expect("{")
        line.end()
        scope = _Scope()
        line = self.next_line("a node or 'return'")
        while line.peek() != "return":
            self.node(line, scope, depth)
            line = self.next_line("a node or 'return'")
        line.take()
        outputs = self.labels(line, scope)
        updates: list[tuple[Node, Node]] = []
        line = self.next_line("'update' or '}'")
        while line.accept("update"):
            cell = scope.find(line)
            line.expect("=")
            updates.append((cell, scope.find(line)))
            line.end()
            line = self.next_line("'update' or '}'")
        line.expect("}")
        line.end()
        inputs, state = tuple(scope.inputs), tuple(scope.state)
        return Graph(inputs, outputs, state, tuple(updates), name, scope.locations, scope.names)

    def name(self, line: Line) -> str:
        """A graph's name."""
        token = line.peek()
        if token[:1] == '"':
            return line.string(line.take())
        if not (token[:1].isalpha() or token[:1] == "_") or "[" in token or "<" in token:
            line.fail("a name")
        return line.take()

    def labels(self, line: Line, scope: _Scope) -> tuple[Node, ...]:
        """What ``return`` lists."""
        found: list[Node] = []
        if line.peek()[:1] == "%":
            found.append(scope.find(line))
            while line.accept(","):
                found.append(scope.find(line))
        line.end()
        return tuple(found)

    def node(self, line: Line, scope: _Scope, depth: int) -> None:
        """One node, the regions below it and its location."""
        label = line.peek()
        if label[:1] != "%" or _LABEL.fullmatch(label) is None:
            line.fail("a label such as %0, or 'return'")
        line.at += 1
        kind = self.type(line) if line.accept(":") else None
        line.expect("=")
        name = line.take()
        try:
            op = lookup(name)
        except GraphError as error:
            line.error(str(error))
        line.expect("(")
        if name == "constant":
            if not isinstance(kind, TensorType):
                line.error("a constant needs a tensor type: %0: f32[] = constant(0.5)")
            operands: list[Node] = []
            attrs: dict[str, Any] = {"value": self.array(line, kind)}
            line.expect(")")
        else:
            operands, attrs = self.arguments(line, scope)
        line.end()
        comment = line.peek()
        if any(_has_reference(v) for v in attrs.values()):
            found = self.regions(depth)
            attrs = {k: _resolve(v, found, line) for k, v in attrs.items()}
        inferred = _infer(line, name, operands, attrs, kind)
        node = make_node(op, operands, attrs, inferred)
        scope.define(line, label, node)
        if comment:
            place = self.location(comment, line)
            if place is not None:
                scope.locations[node] = place

    def location(self, comment: str, line: Line) -> Location | None:
        """The location a comment gives, or ``None`` for any other comment."""
        if comment not in self.places:
            match = _LOCATION.fullmatch(comment)
            place = None
            if match is not None:
                file, number, module = match.groups()
                place = Location(_word(file, line), int(number or 0), _word(module, line))
            self.places[comment] = None if place == Location() else place
        return self.places[comment]

    def regions(self, depth: int) -> dict[str, Graph]:
        """The graphs ``@name = graph …`` that follow a node."""
        found: dict[str, Graph] = {}
        while self.skip_blank() and self.lines[self.at].lstrip()[0] == "@":
            line = self.next_line("a region")
            label = line.take()
            if label in found:
                line.error(f"region {label} is given twice")
            line.expect("=")
            line.expect("graph")
            found[label] = self.graph(line, depth + 1)
        return found

    def arguments(self, line: Line, scope: _Scope) -> tuple[list[Node], dict[str, Any]]:
        """Operands, then attributes, up to the closing parenthesis."""
        operands: list[Node] = []
        attrs: dict[str, Any] = {}
        if line.accept(")"):
            return operands, attrs
        while True:
            token = line.peek()
            if token[:1] == "%":
                if attrs:
                    line.fail("an attribute (operands come first)")
                operands.append(scope.find(line))
            elif token.isidentifier():
                line.at += 1
                line.expect("=")
                if token in attrs:
                    line.error(f"attribute {token} is given twice")
                attrs[token] = self.value(line)
            else:
                line.fail("an operand or an attribute")
            if line.accept(")"):
                return operands, attrs
            if not line.accept(","):
                line.fail("',' or ')'")

    def value(self, line: Line) -> Any:
        """One attribute value; a reference to a region becomes a :class:`_Reference`."""
        token = line.peek()
        first = token[:1]
        if first == "(":
            line.at += 1
            return self.sequence(line)
        if first == '"':
            return line.string(line.take())
        if first == "@":
            return _Reference(line.take())
        if token in _WORDS:
            line.at += 1
            return _WORDS[token]
        if token in _DTYPE_NAMES:
            return dtype_named(line.take())
        if token in ("tuple", "array"):
            return self.composite(line)
        if token[:4] == "dim<":
            return self.dim(line.take()[4:-1], line)
        if "[" in token[1:]:
            return self.tensor_type(line.take(), line)
        if first and first.isascii() and (first.isalnum() or first in "_-"):
            return self.number(line)
        line.fail("a value")

    def composite(self, line: Line) -> Any:
        """``tuple(types)`` or ``array<type>elements``."""
        if line.accept("tuple"):
            if line.peek() != "(":
                line.fail("'('")
            return self.type(line)
        line.expect("array")
        line.expect("<")
        kind = self.tensor_type(line.take(), line)
        line.expect(">")
        return self.array(line, kind)

    def number(self, line: Line) -> Any:
        """An integer, a float or a symbolic dimension, up to the next ``,`` or ``)``."""
        tokens = [line.take()]
        while line.peek() not in (",", ")", ""):
            tokens.append(line.take())
        if len(tokens) > 1 or tokens[0][0].isalpha() or tokens[0][0] == "_":
            return self.dim("".join(tokens), line)
        try:
            if tokens[0].removeprefix("-").isdigit():
                return int(tokens[0])
            return read_float(tokens[0])
        except ValueError as error:
            line.error(f"{tokens[0]!r} is no number: {error}")

    def sequence(self, line: Line) -> tuple[Any, ...]:
        """The rest of a tuple."""
        items: list[Any] = []
        while not line.accept(")"):
            items.append(self.value(line))
            if not line.accept(",") and line.peek() != ")":
                line.fail("',' or ')'")
        return tuple(items)

    def array(self, line: Line, kind: TensorType) -> ArrayValue:
        """The elements of an array of type ``kind``."""
        token = line.peek()
        if token[:6] == "const<":
            line.at += 1
            data = self.data.get(token[6:-1])
            if data is None:
                line.error(f"{token} is not in the table of data at the end")
            if data.type != kind:
                line.error(f"{token} has type {data.type}, not {kind}")
            return data
        try:
            return array_of(self.elements(line, kind), kind)
        except GraphError as error:
            line.error(str(error))

    def elements(self, line: Line, kind: TensorType) -> list[Any]:
        """Nested brackets of elements, flattened."""
        found: list[Any] = []
        depth = 0
        while True:
            token = line.take()
            if token == "[":
                depth += 1
            elif token == "]" and depth:
                depth -= 1
            elif token == "complex":
                found.append(self.complex(line, kind.dtype))
            elif token != "," or not depth:
                found.append(read_element(token, kind.dtype))
            if depth == 0:
                return found

    def complex(self, line: Line, dtype: DType) -> Any:
        """The rest of ``complex(real, imaginary)``."""
        half = float32 if dtype.itemsize == 8 else float64
        value = np.empty((), dtype.numpy)
        line.expect("(")
        value.real = read_element(line.take(), half)  # not real + 1j * imaginary:
        line.expect(",")  # that loses infinities and -0.0
        value.imag = read_element(line.take(), half)
        line.expect(")")
        return value

    def type(self, line: Line) -> Type:
        """A tensor or tuple type."""
        if not line.accept("("):
            return self.tensor_type(line.take(), line)
        items: list[Type] = []
        while not line.accept(")"):
            items.append(self.type(line))
            if not line.accept(",") and line.peek() != ")":
                line.fail("',' or ')'")
        return TupleType(tuple(items))

    def tensor_type(self, text: str, line: Line) -> TensorType:
        """A type such as ``f32[8,2*batch]``."""
        found = self.types.get(text)
        if found is None:
            match = _TENSOR.fullmatch(text)
            if match is None or match[1] not in _DTYPE_NAMES:
                line.error(f"expected a type such as f32[8,16], found {text!r}")
            dims = match[2].split(",") if match[2].strip() else []
            shape = tuple(self.dim(d, line) for d in dims)
            found = self.types[text] = TensorType(dtype_named(match[1]), shape)
        return found

    def dim(self, text: str, line: Line) -> Dim:
        """A dimension: an extent or a polynomial of symbols."""
        try:
            if text.strip():
                return parse_dim(text)
        except (ValueError, RuntimeError):
            pass
        line.error(f"{text!r} is no dimension")


class _Reference:
    """``@name`` in an attribute, until the region it names is read."""

    def __init__(self, label: str) -> None:
        self.label = label


_WORDS: dict[str, Any] = {
    "true": True,
    "false": False,
    "none": None,
    "nan": float("nan"),
    "inf": float("inf"),
    "-inf": float("-inf"),
}
assert {w.lstrip("-") for w in _WORDS} | _DTYPE_NAMES <= RESERVED


def _word(text: str | None, line: Line) -> str:
    if not text:
        return ""
    return line.string(text) if text[0] == '"' else text


def _has_reference(value: Any) -> bool:
    if isinstance(value, tuple):
        return any(map(_has_reference, value))
    return isinstance(value, _Reference)


def _resolve(value: Any, found: dict[str, Graph], line: Line) -> Any:
    if isinstance(value, tuple):
        return tuple(_resolve(v, found, line) for v in value)
    if isinstance(value, _Reference):
        if value.label not in found:
            line.error(f"the region {value.label} does not follow this line")
        return found[value.label]
    return value


def _infer(
    line: Line, name: str, operands: list[Node], attrs: dict[str, Any], declared: Type | None
) -> Type:
    """The node's type by the operation's rule, which a declared type must equal."""
    op = lookup(name)
    if op.kind is Kind.LEAF:
        if declared is None:
            line.error(f"{name} needs a type: %x: f32[8,16] = {name}(…)")
        if name in ("input", "state") and not isinstance(attrs.get("name"), str):
            line.error(f'{name} needs a name: %x: {declared} = {name}(name="x")')
        return declared
    types = [n.type for n in operands]
    try:
        inferred = op.infer(types, attrs)  # type: ignore[arg-type]
    except Exception as error:  # a rule may fail in any way on attributes it never saw
        spelled = ", ".join(map(str, types))
        line.error(f"{name} does not take ({spelled}) and these attributes: {error!r}")
    if declared is not None and inferred != declared:
        line.error(f"{name} yields {inferred} here, not {declared}")
    return inferred
