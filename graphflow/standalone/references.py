"""An operation as a NumPy expression: its reference, made simple, inline or as a function."""

from __future__ import annotations

import ast
import builtins
import copy
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from graphflow.errors import GraphFlowError
from graphflow.ir.graph import Graph
from graphflow.ir.node import ArrayValue, Node
from graphflow.ir.types import DType, TensorType
from graphflow.standalone.folding import (
    Folder,
    Plain,
    dtype_tree,
    literal,
    numpy_name,
    with_operands,
)
from graphflow.standalone.loops import SPELLED
from graphflow.standalone.sources import assignment_of, class_tree, tree_of, values_of
from graphflow.standalone.spelling import Spelling

_LONGEST = 90
"""Characters of an expression that is written where it is used."""


class Helpers:
    """The functions and constants that an exported file needs, each once."""

    def __init__(self, taken: set[str], values: set[str]) -> None:
        self._taken, self._values = taken, values
        self.texts: dict[str, str] = {}
        self.imports: set[str] = set()
        self._named: dict[str, str] = {}

    def expression(
        self, node: Node, operands: Sequence[ast.expr], regions: Mapping[str, str]
    ) -> ast.expr:
        """``node`` over these operands; ``regions`` are the names of its regions' functions."""
        reference = SPELLED.get(node.op.name, node.op.reference)
        attrs = {k: v.array if isinstance(v, ArrayValue) else v for k, v in node.attrs.items()}
        numpy = numpy_name(reference)
        if numpy is not None:
            call = ast.Call(numpy, list(operands), [_keyword(k, v) for k, v in attrs.items()])
            return _finished(call)
        if not isinstance(reference, types.FunctionType):
            raise GraphFlowError(f"operation {node.op.name} has no form as Python source")
        try:
            return self._applied(node, reference, operands, attrs, regions)
        except (KeyError, AttributeError, TypeError) as error:
            raise GraphFlowError(f"operation {node.op.name} cannot be exported: {error}") from error

    def _applied(
        self, node: Node, reference: types.FunctionType, operands: Sequence[ast.expr],
        attrs: Mapping[str, Any], regions: Mapping[str, str],
    ) -> ast.expr:  # fmt: skip
        reference = _undecorated(reference)
        tree = definition(reference)
        names = [a.arg for a in (*tree.args.posonlyargs, *tree.args.args)]
        dtypes = {
            name: operand.type.dtype
            for name, operand in zip(names, node.inputs)
            if isinstance(operand.type, TensorType)
        }
        special = {k: v for k, v in attrs.items() if isinstance(v, (DType, Graph))}
        tree = Folder(dtypes, {**special, **_simple_closure(reference)}).visit(tree)
        body = _without_constants(tree, dtypes)
        single = len(body) == 1 and not tree.decorator_list
        if single and isinstance(body[0], ast.Return) and body[0].value is not None:
            plain = {k: literal(v) for k, v in attrs.items() if k not in special}
            inline = with_operands(body[0].value, plain)
            if self._is_open(inline, reference, names):
                made = _finished(with_operands(inline, dict(zip(names, operands))))
                uses = [n.id for n in ast.walk(inline) if isinstance(n, ast.Name)]
                once = all(
                    uses.count(n) <= 1 or isinstance(o, ast.Name) for n, o in zip(names, operands)
                )
                if once and len(ast.unparse(made)) <= _LONGEST:
                    return made
        kept = {k: v for k, v in attrs.items() if not isinstance(v, DType)}
        function = self._function(
            tree, reference, node.op.name, {k for k in attrs if k not in kept}
        )
        keywords = [
            ast.keyword(k, ast.Name(regions[k], ast.Load())) if k in regions else _keyword(k, v)
            for k, v in kept.items()
        ]
        return ast.Call(ast.Name(function, ast.Load()), list(operands), keywords)

    def _is_open(self, body: ast.expr, function: Callable[..., Any], names: list[str]) -> bool:
        """Whether an expression uses NumPy and built-in functions only."""
        values = values_of(function)
        bound = {
            a.id
            for n in ast.walk(body)
            if isinstance(n, ast.comprehension)
            for a in ast.walk(n.target)
            if isinstance(a, ast.Name)
        }
        for node in ast.walk(body):
            if isinstance(node, ast.Name) and node.id not in names and node.id not in bound:
                if node.id != "np" and not hasattr(builtins, node.id):
                    return values.get(node.id) is np
        return True

    # ---- functions of the file -----------------------------------------------------

    def function(self, function: types.FunctionType) -> str:
        """A whole function of ours, for all dtypes; its name in the file."""
        tree = Folder({}, _simple_closure(function)).visit(definition(function))
        name = tree.name.lstrip("_") or "function"
        return self._function(tree, function, name, set())

    def _function(
        self, tree: ast.FunctionDef, source: types.FunctionType, name: str, dropped: set[str]
    ) -> str:
        tree = copy.deepcopy(tree)
        tree.args.kwonlyargs, tree.args.kw_defaults = _without(tree.args, dropped)
        tree.name = "_"
        key = f"{source.__module__}.{source.__qualname__} {_other_closure(source)} "
        key += ast.unparse(tree)
        if key in self._named:
            return self._named[key]
        chosen = self.free_name(name)
        self._named[key] = tree.name = chosen
        self.texts[chosen] = ""  # a place: what it needs comes before
        self._resolve(tree, source)
        del self.texts[chosen]
        self.texts[chosen] = ast.unparse(ast.fix_missing_locations(Spelling().visit(tree)))
        return chosen

    def free_name(self, name: str) -> str:
        """``name``, or with a number where that is taken."""
        chosen, number = name, 1
        while chosen in self._taken or chosen in self._values or hasattr(builtins, chosen):
            number += 1
            chosen = f"{name}_{number}"
        self._taken.add(chosen)
        return chosen

    def _resolve(self, tree: ast.AST, source: types.FunctionType) -> None:
        """Bring along what a definition refers to, and call it by its name in the file."""
        values, local = values_of(source), _local_names(tree)
        renamed: dict[str, str | ast.expr] = {}
        for node in ast.walk(tree):
            if isinstance(node, ast.Name) and node.id not in local and node.id not in renamed:
                if node.id not in values:
                    raise KeyError(node.id)
                renamed[node.id] = self._outside(node.id, values[node.id], source)

        class Rename(ast.NodeTransformer):
            def visit_Name(self, node: ast.Name) -> ast.expr:
                found = renamed.get(node.id, node.id)
                return ast.Name(found, node.ctx) if isinstance(found, str) else found

        Rename().visit(tree)

    def _outside(self, name: str, value: Any, source: types.FunctionType) -> str | ast.expr:
        if value is np:
            return "np"
        if hasattr(builtins, name) and getattr(builtins, name) is value:
            return name
        if isinstance(value, types.ModuleType):
            self.imports.add(f"import {value.__name__}")
            return name
        numpy = numpy_name(value)
        if numpy is not None:
            return numpy
        if hasattr(value, "__name__"):
            return self._imported(value, source)
        statement = assignment_of(source.__module__, name)
        if statement is None:
            if isinstance(value, (bool, int, float, str)):
                return literal(value)
            raise KeyError(f"{name} of {source.__module__}")
        if name not in self.texts:
            made = copy.deepcopy(statement)
            self._resolve(made, source)
            self.texts[name] = ast.unparse(made)
        return name

    def _imported(self, value: Any, source: types.FunctionType) -> str:
        """The name of a function or class that the file imports, or brings along."""
        if isinstance(value, type) and issubclass(value, Exception):
            base = next(c for c in value.__mro__ if c.__module__ == "builtins")
            return base.__name__
        name, module = str(value.__name__), value.__module__ or ""
        if not module.startswith("graphflow"):
            self.imports.add(f"from {module} import {name}")
            return name
        if isinstance(value, type):
            return self._class(value, source)
        return self.function(_undecorated(value))

    def _class(self, cls: type, source: types.FunctionType) -> str:
        if cls.__name__ not in self.texts:
            made = Folder({}, {}).visit(copy.deepcopy(class_tree(cls)))
            methods = (m for m in vars(cls).values() if isinstance(m, types.FunctionType))
            self._resolve(made, next(methods, source))
            self.texts[cls.__name__] = ast.unparse(ast.fix_missing_locations(made))
        return cls.__name__


def _undecorated(function: Any) -> Any:
    """The function whose definition is in the module; its decorators come along with that."""
    return getattr(function, "__wrapped__", function)


def definition(function: types.FunctionType) -> ast.FunctionDef:
    """A copy of the definition of a function; a lambda as a function that returns."""
    tree = copy.deepcopy(tree_of(function))
    if isinstance(tree, ast.Lambda):
        (made,) = ast.parse("def function(): ...").body
        assert isinstance(made, ast.FunctionDef)
        made.args, made.body = tree.args, [ast.Return(tree.body)]
        return ast.fix_missing_locations(made)
    return tree


def _finished(tree: ast.expr) -> ast.expr:
    made: ast.expr = Spelling().visit(Plain().visit(ast.fix_missing_locations(tree)))
    return made


def _keyword(name: str, value: Any) -> ast.keyword:
    return ast.keyword(name, dtype_tree(value) if isinstance(value, DType) else literal(value))


def _simple_closure(function: types.FunctionType) -> dict[str, Any]:
    """The values in a closure that can be written down."""
    free = zip(function.__code__.co_freevars, function.__closure__ or ())
    found = {name: cell.cell_contents for name, cell in free}
    plain = (bool, int, float, str, tuple, DType)
    return {k: v for k, v in found.items() if isinstance(v, plain) or numpy_name(v) is not None}


def _other_closure(function: types.FunctionType) -> str:
    """What tells apart functions of one source that close over different functions."""
    cells = (cell.cell_contents for cell in function.__closure__ or ())
    return " ".join(getattr(value, "__qualname__", "") for value in cells)


def _without_constants(tree: ast.FunctionDef, dtypes: Mapping[str, DType]) -> list[ast.stmt]:
    """The body without its docstring, with names for dtypes put in where they are used."""
    body = list(tree.body)
    if body and isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant):
        body.pop(0)
    while len(body) > 1 and isinstance(body[0], ast.Assign):
        target, value = body[0].targets[0], body[0].value
        stored = [n.id for s in body for n in ast.walk(s)
                  if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)]  # fmt: skip
        if not isinstance(target, ast.Name) or stored.count(target.id) != 1:
            break
        text = ast.unparse(value)
        if not any(text in (f"{n}.dtype", ast.unparse(dtype_tree(d))) for n, d in dtypes.items()):
            if not text.startswith("np.") or "(" in text:
                break
        put = {target.id: value}
        body = [_put(statement, put) for statement in body[1:]]
    return body


def _put(statement: ast.stmt, values: Mapping[str, ast.expr]) -> ast.stmt:
    class Put(ast.NodeTransformer):
        def visit_Name(self, node: ast.Name) -> ast.expr:
            return copy.deepcopy(values.get(node.id, node))

    made: ast.stmt = Put().visit(statement)
    return made


def _without(args: ast.arguments, dropped: set[str]) -> tuple[list[ast.arg], list[ast.expr | None]]:
    pairs = [
        (a, d) for a, d in zip(args.kwonlyargs, args.kw_defaults) if a.arg not in dropped
    ]  # fmt: skip
    return [a for a, _ in pairs], [d for _, d in pairs]


def _local_names(tree: ast.AST) -> set[str]:
    found = {
        n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)
    }
    found |= {n.arg for n in ast.walk(tree) if isinstance(n, ast.arg)}
    return found | {n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)}
