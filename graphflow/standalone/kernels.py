"""Elementwise operations that belong together, as one function of scalars for Numba."""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from typing import Any

from graphflow.ir.graph import Graph
from graphflow.ir.node import Node
from graphflow.ir.op import Kind
from graphflow.ir.types import DType, TensorType
from graphflow.records import dataclass
from graphflow.standalone.scalars import BUILT_IN, DEFINED

_WORDS = re.compile(r"(?:vm\.)?\b[a-zA-Z_]\w*\b(?=\()")
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_LONGEST = 60
"""Characters of an expression; longer ones are taken apart."""


@dataclass(frozen=True, slots=True)
class Group:
    """Nodes computed together, the last one being the result, and the values they read."""

    nodes: tuple[Node, ...]
    operands: tuple[Node, ...]


def groups_of(graph: Graph) -> dict[Node, Group]:
    """Groups by their result.  An operand joins if nothing else reads it and its shape is that
    of the result, so that nothing is computed twice."""
    taken: set[Node] = set()
    kept = {*graph.roots}
    found: dict[Node, Group] = {}
    for root in reversed(graph.nodes):
        if root in taken or not is_scalar(root):
            continue
        inside = {root}
        pending = [root]
        while pending:
            for operand in dict.fromkeys(pending.pop().inputs):
                users = graph.users[operand]
                if operand in inside or operand in kept or not is_scalar(operand):
                    continue
                if operand.tensor_type.shape == root.shape and inside.issuperset(users):
                    inside.add(operand)
                    pending.append(operand)
        if len(inside) > 1:
            taken |= inside
            nodes = tuple(n for n in graph.nodes if n in inside)
            outer = dict.fromkeys(o for n in nodes for o in n.inputs if o not in inside)
            operands = tuple(o for o in outer if scalar_constant(o) is None)
            if len(operands) <= len(_LETTERS):
                found[root] = Group(nodes, operands)
            else:
                taken -= inside
    return found


def is_scalar(node: Node) -> bool:
    """Whether a node is an elementwise operation that Numba can spell."""
    if node.op.kind is not Kind.ELEMENTWISE or not isinstance(node.type, TensorType):
        return False
    types = [node.type, *(n.type for n in node.inputs)]
    if any(not isinstance(t, TensorType) or not _is_plain(t.dtype) for t in types):
        return False
    if node.op.scalar is None:
        return False
    words = _WORDS.findall(spelled(node, ["x"] * len(node.inputs)))
    return all(word.removeprefix("vm.") in _known() for word in words)


def _is_plain(dtype: DType) -> bool:
    return (dtype.itemsize != 2 and not dtype.is_complex) or dtype.kind in ("int", "uint", "bool")


def _known() -> set[str]:
    return {*BUILT_IN, *DEFINED, *ALIASES}


ALIASES = {
    "f32": "np.float32", "f64": "np.float64", "i8": "np.int8", "i16": "np.int16",
    "i32": "np.int32", "i64": "np.int64", "u8": "np.uint8", "u32": "np.uint32",
    "u64": "np.uint64", "bool": "np.bool_",
}  # fmt: skip
"""Types by the names that scalar templates have for them."""


def spelled(node: Node, operands: Sequence[str]) -> str:
    """The scalar template of a node over these expressions."""
    dtype = node.inputs[0].tensor_type.dtype
    template = node.op.scalar_for(dtype)
    attrs: dict[str, Any] = dict(node.attrs)
    return template.format(*operands, **attrs)


def scalar_constant(node: Node) -> str | None:
    """A constant of no dimensions, written with its type."""
    if node.op.name != "constant" or node.shape != ():
        return None
    value = node.attrs["value"].array.item()
    if isinstance(value, (bool, int)) and node.dtype.name in ("bool", "int64"):
        return repr(value)
    text = repr(value) if value == value and abs(value) != float("inf") else f"float('{value}')"
    if text.startswith("float"):
        text = "np.nan" if value != value else "np.inf" if value > 0 else "-np.inf"
    return f"np.{node.dtype.numpy.name}({text})"


def _signature(group: Group) -> str:
    """The types of a group as Numba spells them: results are then of the type they should be."""
    types = [_type_name(node.dtype) for node in (group.nodes[-1], *group.operands)]
    return f"{types[0]}({', '.join(types[1:])})"


def _type_name(dtype: DType) -> str:
    return "boolean" if dtype.kind == "bool" else dtype.numpy.name


class Functions:
    """The kernels of a file: equal ones are one function."""

    def __init__(self, taken: set[str], values: set[str]) -> None:
        self._taken, self._values = taken, values
        self.texts: dict[str, str] = {}
        self.scalars: set[str] = set()
        self._named: dict[str, str] = {}

    def name(self, group: Group) -> str:
        """The name of the function that computes ``group``."""
        names = dict(zip(group.operands, _LETTERS))
        lines = self._lines(group, names)
        signature = _signature(group)
        key = "\n".join([signature, *lines])
        if key not in self._named:
            words = list(dict.fromkeys(n.op.name for n in group.nodes if n.op.name != "cast"))
            stem = "_".join(words[:3] if len(words) < 5 else [*words[:2], words[-1]]) or "cast"
            chosen, number = stem, 1
            while chosen in self._taken | self._values or (len(words) == 1 and number == 1):
                number += 1
                chosen = f"{stem}_{number}"
            self._named[key] = chosen
            self._taken.add(chosen)
            body = "\n".join(f"    {line}" for line in lines)
            head = f"@vectorize('{signature}', cache=True)\n"
            head += f"def {chosen}({', '.join(names.values())}):\n"
            self.texts[chosen] = head + body
        return self._named[key]

    def _lines(self, group: Group, names: dict[Node, str]) -> list[str]:
        made = {node: ast.Name(letter) for node, letter in names.items()}
        values: dict[Node, str] = {node: name.id for node, name in made.items()}
        lines: list[str] = []
        inside = set(group.nodes)
        for node in group.nodes:
            operands = [values.get(n) or scalar_constant(n) or "" for n in node.inputs]
            text = self._expression(spelled(node, [f"({o})" for o in operands]))
            uses = sum(n.inputs.count(node) for n in inside)
            if node is group.nodes[-1]:
                lines.append(f"return {text}")
            elif uses > 1 or len(text) > _LONGEST:
                name = f"t{sum(not line.startswith('return') for line in lines)}"
                lines.append(f"{name} = {text}")
                values[node] = name
            else:
                values[node] = text
        return lines

    def _expression(self, text: str) -> str:
        functions = self

        class Call(ast.NodeTransformer):
            def visit_Call(self, node: ast.Call) -> ast.expr:
                self.generic_visit(node)
                name = ast.unparse(node.func).removeprefix("vm.")
                if name in ALIASES or name in BUILT_IN:
                    spelling = ALIASES.get(name) or BUILT_IN[name]
                    node.func = ast.parse(spelling, mode="eval").body
                elif name in DEFINED:
                    functions.scalars.add(name)
                    node.func = ast.Name(name, ast.Load())
                return node

        return ast.unparse(Call().visit(ast.parse(text, mode="eval")))
