"""The whole file: kernels, array operations, the program, and how to run it."""

from __future__ import annotations

import ast
import inspect
import keyword
import os
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from graphflow.errors import GraphFlowError
from graphflow.ir.graph import Graph
from graphflow.ir.node import Node
from graphflow.ir.op import Kind
from graphflow.ir.types import TensorType, TupleType
from graphflow.standalone import reading
from graphflow.standalone.kernels import Functions, Group, groups_of, scalar_constant
from graphflow.standalone.references import Helpers
from graphflow.standalone.scalars import DEFINED
from graphflow.standalone.spelling import wrapped
from graphflow.version import __version__

_SMALL = 16
"""Elements of a constant that is written in the text; larger ones lie beside the weights."""
_INLINE = 60
"""Characters of an expression that is put where its only reader is."""


class Exported:
    """A graph as the text of a file, and the arrays to be saved beside it by name."""

    def __init__(
        self, graph: Graph, state: Mapping[str, Any], settings: Mapping[str, float], stem: str
    ) -> None:
        self.graph, self.settings, self.stem = graph, settings, stem
        self.arrays: dict[str, Any] = dict(state)
        for node in graph.nodes:
            _check(graph, node)
        self.taken = {"state", "np", "json", "struct", "sys", "time", "math", "main"}
        self.taken |= {"read_weights", "vectorize", "njit", *DEFINED}
        self.values: set[str] = set()
        self.helpers = Helpers(self.taken, self.values)
        self.kernels = Functions(self.taken, self.values)
        self.regions: list[str] = []
        self.name = identifier(graph.name, self.taken)
        program = self._program()
        self.text = "\n\n\n".join([*self._head(), *program, self._main()]) + "\n"

    # ---- parts ---------------------------------------------------------------------

    def _head(self) -> list[str]:
        texts = [*self.helpers.texts.values(), *self.kernels.texts.values()]
        imports = {
            *self.helpers.imports,
            "import json",
            "import struct",
            "import sys",
            "import time",
        }
        imports -= {"import numpy"}
        if any("math." in text for text in texts):
            imports.add("import math")
        numba = "from numba import " + ("njit, vectorize" if self.kernels.scalars else "vectorize")
        needed = ["import numpy as np", *([numba] if self.kernels.texts else [])]
        scalars = [
            "@njit(error_model='numpy')\n" + _bare(DEFINED[name])
            for name in DEFINED
            if name in self.kernels.scalars
        ]
        parts = [
            f'"""{self._title()}"""\n\n'
            + "\n".join([*sorted(imports, key=_import_order), "", *needed])
        ]
        if self.kernels.texts:
            parts.append(_rule("Elementwise work: Numba makes one loop of each of these."))
            parts += [*scalars, *self.kernels.texts.values()]
        if self.helpers.texts:
            parts.append(_rule("Array operations that NumPy has no single function for."))
            parts += self.helpers.texts.values()
        return [_lines_wrapped(part) for part in parts]

    def _title(self) -> str:
        names = ", ".join(plain(n.attrs["name"]) for n in self.graph.inputs[: self._given()])
        changed = "``state`` is updated, as by a training step." if self.graph.updates else ""
        return (
            f"{plain(self.graph.name)}: exported by GraphFlow {__version__}, needs NumPy and "
            "Numba only.\n\n"
            f"    state = read_weights('{plain(self.stem)}.safetensors')\n"
            f"    result = {self.name}(state, {names})\n\n{changed}".rstrip()
            + "\n"
        )

    def _given(self) -> int:
        return len(self.graph.inputs) - len(self.settings)

    def _program(self) -> list[str]:
        graph = self.graph
        writer = _Body(self, graph)
        parameters = [writer.names[n] for n in graph.inputs[: self._given()]]
        settings = [
            f"{writer.names[n]}={self.settings[n.attrs['name']]!r}"
            for n in graph.inputs[self._given() :]
        ]
        star = ["*", *settings] if settings else []
        head = f"def {self.name}({', '.join(['state', *parameters, *star])}):"
        lines = [f'"""{self._contract()}"""']
        lines += [
            f"{writer.names[n]} = np.asarray({writer.names[n]}, np.{n.dtype.numpy.name})"
            for n in graph.inputs
            if graph.users[n]
        ]
        lines += [
            f"{writer.names[n]} = state[{n.attrs['name']!r}]"
            for n in graph.state
            if graph.users[n] or n in graph.roots
        ]
        lines += writer.lines()
        outputs = [writer.text(n) for n in graph.outputs]
        lines += [""] if graph.updates else []
        for cell, value in graph.updates:
            lines.append(f"state[{cell.attrs['name']!r}] = {writer.text(value)}")
        lines.append(f"return {', '.join(outputs) or 'None'}")
        body = "\n".join(wrapped(f"    {line}") if line else "" for line in lines)
        text = f"@np.errstate(all='ignore')\n{wrapped(head)}\n{body}"
        title = _rule("The program.")
        return [title, *self.regions, text, _reader()]

    def _contract(self) -> str:
        graph = self.graph
        rows = [f"{plain(n.attrs['name'])}: {_type(n)}" for n in graph.inputs[: self._given()]]
        results = ", ".join(_type(n) for n in graph.outputs) or "nothing"
        return (
            f"{plain(graph.name)}({', '.join(rows)}) -> {results}.\n\n    ``state`` has the "
            "arrays of the weights file by name"
            + ("; new values replace them at the end." if graph.updates else ".")
            + "\n    "
        )

    def _main(self) -> str:
        makers = []
        for node in self.graph.inputs[: self._given()]:
            shape = node.tensor_type.static_shape
            if node.dtype.is_floating_point:
                makers.append(f"random.normal(size={shape}).astype(np.{node.dtype.numpy.name})")
            else:
                makers.append(f"np.zeros({shape}, np.{node.dtype.numpy.name})")
        lines = [
            "def main():",
            '    """Run on made-up inputs, twice: the first call compiles."""',
            f"    path = sys.argv[1] if len(sys.argv) > 1 else {self.stem + '.safetensors'!r}",
            "    state, random = read_weights(path), np.random.default_rng(0)",
            f"    inputs = [{', '.join(makers)}]",
            "    for _ in range(2):",
            "        started = time.perf_counter()",
            f"        result = {self.name}(state, *inputs)",
            "        print(f'{time.perf_counter() - started:.3f} s', result)",
        ]
        text = "\n".join(map(wrapped, lines))
        return f"{text}\n\n\nif __name__ == '__main__':\n    main()"

    # ---- what bodies ask for -------------------------------------------------------

    def region(self, graph: Graph, name: str) -> str:
        """The name of the function of a region."""
        taken = {text.split("(")[0].removeprefix("def ") for text in self.regions}
        chosen, number = f"{name}_1", 1
        while chosen in taken:
            number += 1
            chosen = f"{name}_{number}"
        place = len(self.regions)
        self.regions.append(f"def {chosen}(")
        writer = _Body(self, graph)
        head = f"def {chosen}({', '.join(writer.names[n] for n in graph.inputs)}):"
        lines = writer.lines()
        results = "".join(f"{writer.text(n)}, " for n in graph.outputs)
        lines.append(f"return ({results.rstrip()})")
        self.regions[place] = "\n".join([wrapped(head), *(wrapped(f"    {x}") for x in lines)])
        return chosen


def _check(graph: Graph, node: Node) -> None:
    """Refuse what no file can hold."""
    types = node.type.items if isinstance(node.type, TupleType) else (node.type,)
    place = graph.locations.get(node)
    for type in types:
        if isinstance(type, TensorType) and not type.is_static:
            raise GraphFlowError(
                f"graph {graph.name!r} has symbolic dimensions ({type}); export it with known sizes"
            )
        if isinstance(type, TensorType) and type.dtype.name == "bfloat16":
            raise GraphFlowError(f"bfloat16 at {place}: NumPy has no such numbers")
    if not node.op.pure:
        raise GraphFlowError(
            f"{node.op.name} at {place} calls a Python function, which no file can hold"
        )


class _Body:
    """The statements of one graph: a name or an expression for every node."""

    def __init__(self, owner: Exported, graph: Graph) -> None:
        self.owner, self.graph = owner, graph
        self._own: set[str] = set()
        self.names: dict[Node, str] = {}
        self._expressions: dict[Node, ast.expr] = {}
        for node in (*graph.inputs, *graph.state):
            self.names[node] = self._called(str(node.attrs["name"]))
        self._groups = groups_of(graph)
        self._inside = {n for root, g in self._groups.items() for n in g.nodes if n is not root}
        self._counts: dict[str, int] = {}

    def text(self, node: Node) -> str:
        """The expression for a node's value."""
        return ast.unparse(self.value(node))

    def value(self, node: Node) -> ast.expr:
        """The expression for a node's value as a tree."""
        if node in self.names:
            return ast.Name(self.names[node], ast.Load())
        if node not in self._expressions:
            self._expressions[node] = self._constant(node)
        return self._expressions[node]

    def lines(self) -> list[str]:
        """The statements, with a comment where another place of the user's code begins."""
        lines: list[str] = []
        last = ""
        for node in self.graph.nodes:
            if node in self.names or node in self._inside or node.op.name == "constant":
                continue
            tree = self._tree(node)
            if self._goes_inline(node, tree):
                self._expressions[node] = tree
                continue
            place = _place(self.graph, node)
            if place and place != last:
                lines += ["", f"# {place}"]
                last = place
            name = self._fresh(node)
            lines.append(f"{name} = {ast.unparse(ast.fix_missing_locations(tree))}")
            self.names[node] = name
        return lines

    def _tree(self, node: Node) -> ast.expr:
        group = self._groups.get(node)
        if group is not None:
            return self._group(group)
        operands = [self.value(n) for n in node.inputs]
        regions = {
            name: self.owner.region(value, name)
            for name, value in node.attrs.items()
            if isinstance(value, Graph)
        }
        return self.owner.helpers.expression(node, operands, regions)

    def _group(self, group: Group) -> ast.expr:
        name = self.owner.kernels.name(group)
        operands = [self.value(n) for n in group.operands]
        return ast.Call(ast.Name(name, ast.Load()), operands, [])

    def _goes_inline(self, node: Node, tree: ast.expr) -> bool:
        users = self.graph.users[node]
        if len(users) != 1 or users[0].inputs.count(node) != 1 or node in self.graph.roots:
            return False
        cheap = node.op.kind is Kind.VIEW or node.op.name == "get"
        return cheap and len(ast.unparse(tree)) <= _INLINE

    def _constant(self, node: Node) -> ast.expr:
        text = scalar_constant(node)
        if text is not None and "(" not in text and not self._meets_arrays(node):
            text = f"np.{_dtype_name(node.attrs['value'].array)}({text})"
        if text is None:
            array = node.attrs["value"].array
            if array.size <= _SMALL and array.dtype.kind in "biuf":
                text = f"np.array({array.tolist()!r}, np.{_dtype_name(array)})"
                text = text.replace("nan", "np.nan").replace("inf", "np.inf")
            else:
                key = f"constant.{len(self.owner.arrays)}"
                self.owner.arrays[key] = array
                text = f"state[{key!r}]"
        return ast.parse(text, mode="eval").body

    def _meets_arrays(self, node: Node) -> bool:
        """Whether everything that reads a constant has another operand, which has a type."""
        return node not in self.graph.roots and all(
            user.op.kind is Kind.ELEMENTWISE and any(o.op.name != "constant" for o in user.inputs)
            for user in self.graph.users[node]
        )

    def _fresh(self, node: Node) -> str:
        named = self.graph.names.get(node)
        if named:
            return self._called(named)
        stem = {"get": "part"}.get(node.op.name, node.op.name)
        self._counts[stem] = self._counts.get(stem, 0) + 1
        return self._called(f"{stem}_{self._counts[stem]}")

    def _called(self, name: str) -> str:
        """A name that neither this function nor a function of the file has."""
        found = identifier(name, self._own | self.owner.taken)
        self._own.add(found)
        self.owner.values.add(found)
        return found


def identifier(text: str, taken: set[str]) -> str:
    """``text`` as a name that is not taken yet, which it then is."""
    stem = re.sub(r"\W", "_", text, flags=re.ASCII).strip("_") or "value"
    if stem[0].isdigit() or keyword.iskeyword(stem):
        stem = f"v_{stem}"
    name, number = stem, 1
    while name in taken:
        number += 1
        name = f"{stem}_{number}"
    taken.add(name)
    return name


def plain(text: str) -> str:
    """``text`` as it may stand in a comment or a docstring: it cannot end either."""
    return "".join("?" if c in '"\\' or not c.isprintable() else c for c in text)


def _place(graph: Graph, node: Node) -> str:
    place = graph.locations.get(node)
    if place is None:
        return ""
    line = f"{os.path.basename(place.file)}:{place.line}" if place.file else ""
    return plain(f"{place.module}, {line}".strip(", "))


def _type(node: Node) -> str:
    if not isinstance(node.type, TensorType):
        return str(node.type)
    return f"{_dtype_name(np.empty(0, node.dtype.numpy))}{list(node.type.static_shape)}"


def _dtype_name(array: Any) -> str:
    return "bool_" if array.dtype.name == "bool" else str(array.dtype.name)


def _bare(function: Any) -> str:
    """The source of a function without its annotations."""
    tree = ast.parse(inspect.getsource(function)).body[0]
    assert isinstance(tree, ast.FunctionDef)
    tree.returns = None
    for argument in tree.args.args:
        argument.annotation = None
    return ast.unparse(tree)


def _import_order(line: str) -> tuple[bool, str]:
    return line.startswith("from "), line


def _reader() -> str:
    text = inspect.getsource(reading.read_weights)
    return re.sub(r"  # (type|fmt): .*", "", text).rstrip()


def _rule(text: str) -> str:
    return f"# {'-' * 88}\n# {text}\n# {'-' * 88}"


def _lines_wrapped(text: str) -> str:
    return "\n".join(map(wrapped, text.splitlines()))
