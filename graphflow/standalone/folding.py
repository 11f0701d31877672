"""References made simple: what is known of their operands is put in, and branches fold away.

A reference says what an operation means for every dtype; at one place in one graph the dtypes
are known, so ``if a.dtype.itemsize == 2`` is a yes or a no.
"""

from __future__ import annotations

import ast
import builtins
import copy
import types
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from graphflow.ir.graph import Graph
from graphflow.ir.types import DType

_FACTS = ("kind", "itemsize", "name")
_CHECKS = ("check_",)
_BUILTINS = {
    name: getattr(builtins, name)
    for name in ("len", "tuple", "list", "range", "slice", "map", "zip", "sorted", "sum", "int",
                 "max", "min", "reversed", "enumerate", "abs", "set", "Ellipsis")
}  # fmt: skip


def numpy_name(value: Any) -> ast.expr | None:
    """``np.name`` for a function of NumPy, ``np.add.at`` for one of a universal function."""
    name, owner = getattr(value, "__name__", ""), getattr(value, "__self__", None)
    if isinstance(owner, np.ufunc):
        whole = ast.Attribute(ast.Name("np", ast.Load()), owner.__name__, ast.Load())
        return ast.Attribute(whole, name, ast.Load())
    if name and not isinstance(value, types.FunctionType) and getattr(np, name, None) is value:
        return ast.Attribute(ast.Name("np", ast.Load()), name, ast.Load())
    return None


def dtype_tree(dtype: DType) -> ast.expr:
    """``np.float32`` (``np.bool_``)."""
    name = "bool_" if dtype.numpy.name == "bool" else dtype.numpy.name
    return ast.Attribute(ast.Name("np", ast.Load()), name, ast.Load())


class Folder(ast.NodeTransformer):
    """Puts the dtypes of ``operands`` (by parameter) and known ``values`` into a function."""

    def __init__(self, operands: Mapping[str, DType], values: Mapping[str, Any]) -> None:
        self.operands, self.values = operands, values

    # ---- expressions ---------------------------------------------------------------

    def visit_Name(self, node: ast.Name) -> ast.expr:
        """A known value in place of its name."""
        if isinstance(node.ctx, ast.Load) and node.id in self.values:
            value = self.values[node.id]
            if not isinstance(value, (DType, Graph)):
                return numpy_name(value) or literal(value)
        return node

    def visit_Attribute(self, node: ast.Attribute) -> ast.expr:
        """What is known of a dtype."""
        owner = node.value
        if isinstance(owner, ast.Name) and isinstance(self.values.get(owner.id), DType):
            return self._of_dtype(self.values[owner.id], node)
        if (
            isinstance(owner, ast.Attribute)
            and owner.attr == "dtype"
            and isinstance(owner.value, ast.Name)
            and owner.value.id in self.operands
        ):
            dtype = self.operands[owner.value.id]
            if node.attr == "type":
                return dtype_tree(dtype)
            if node.attr in _FACTS:
                return ast.Constant(getattr(dtype.numpy, node.attr))
        self.generic_visit(node)
        return node

    def _of_dtype(self, dtype: DType, node: ast.Attribute) -> ast.expr:
        value = getattr(dtype, node.attr)
        return dtype_tree(dtype) if node.attr == "numpy" else ast.Constant(value)

    def visit_Call(self, node: ast.Call) -> ast.expr:
        """``isinstance(x, Graph)`` is False in a file."""
        name = node.func.id if isinstance(node.func, ast.Name) else ""
        if name == "isinstance" and isinstance(node.args[0], ast.Name):
            if ast.unparse(node.args[1]) in ("Graph", "SymDim"):
                return ast.Constant(False)  # neither is there in a file
        self.generic_visit(node)
        return node

    def visit_Compare(self, node: ast.Compare) -> ast.expr:
        """Constants are compared now."""
        self.generic_visit(node)
        return _evaluated(node) or node

    def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.expr:
        """``not`` of a constant."""
        self.generic_visit(node)
        return _evaluated(node) or node

    def visit_BoolOp(self, node: ast.BoolOp) -> ast.expr:
        """Constants that decide, or decide nothing, go."""
        self.generic_visit(node)
        stops = isinstance(node.op, ast.Or)
        kept: list[ast.expr] = []
        for value in node.values:
            if isinstance(value, ast.Constant) and isinstance(value.value, bool):
                if value.value is stops:
                    return value if not kept else ast.BoolOp(node.op, [*kept, value])
            else:
                kept.append(value)
        if not kept:
            return ast.Constant(not stops)
        return kept[0] if len(kept) == 1 else ast.BoolOp(node.op, kept)

    def visit_IfExp(self, node: ast.IfExp) -> ast.expr:
        """The branch of a known condition."""
        self.generic_visit(node)
        if isinstance(node.test, ast.Constant):
            return node.body if node.test.value else node.orelse
        return node

    # ---- statements ----------------------------------------------------------------

    def visit_If(self, node: ast.If) -> Any:
        """The statements of a known condition."""
        node.test = self.visit(node.test)
        if isinstance(node.test, ast.Constant):
            chosen = node.body if node.test.value else node.orelse
            return [made for statement in chosen for made in _listed(self.visit(statement))]
        self.generic_visit(node)
        return node

    def visit_Expr(self, node: ast.Expr) -> Any:
        """Checks go: NumPy notices too."""
        call = node.value
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name):
            if call.func.id.startswith(_CHECKS):
                return None  # NumPy notices too
        self.generic_visit(node)
        return node

    def visit_Assert(self, node: ast.Assert) -> None:
        """Assertions go."""
        return None

    def visit_AnnAssign(self, node: ast.AnnAssign) -> Any:
        """Annotations go."""
        if node.value is None:
            return None
        return ast.copy_location(ast.Assign([node.target], self.visit(node.value)), node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        """Annotations go, and what stands behind a return."""
        node.returns = None
        for argument in [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]:
            argument.annotation = None
        for other in (node.args.vararg, node.args.kwarg):
            if other is not None:
                other.annotation = None
        self.generic_visit(node)
        ends = [i for i, s in enumerate(node.body) if isinstance(s, (ast.Return, ast.Raise))]
        del node.body[ends[0] + 1 if ends else len(node.body) :]
        return node


def _listed(made: Any) -> list[Any]:
    return [] if made is None else made if isinstance(made, list) else [made]


def _evaluated(node: ast.expr) -> ast.Constant | None:
    """The value of an expression over constants, if it is one."""
    if any(not isinstance(n, (ast.Constant, ast.Compare, ast.UnaryOp, ast.cmpop, ast.unaryop,
                              ast.operator)) for n in ast.walk(node)):  # fmt: skip
        return None
    if isinstance(node, ast.UnaryOp) and not isinstance(node.op, ast.Not):
        return None
    return ast.Constant(eval(compile(_whole(node), "<fold>", "eval"), {"__builtins__": {}}))


def _whole(node: ast.expr) -> ast.Expression:
    return ast.fix_missing_locations(ast.Expression(copy.deepcopy(node)))


class Plain(ast.NodeTransformer):
    """Expressions without names are computed now: ``(1,) * (3 - 1)`` is ``(1, 1)``."""

    def generic_visit(self, node: ast.AST) -> ast.AST:
        """Indices and other plain expressions get their values."""
        if isinstance(node, ast.Subscript):
            node.value = self.visit(node.value)
            index = _value_of(node.slice)
            node.slice = self.visit(node.slice) if index is None else _index(index[0])
            return node
        if isinstance(node, ast.expr) and not isinstance(node, (ast.Constant, ast.Tuple)):
            found = _value_of(node)
            if found is not None and _is_literal(found[0]):
                return literal(found[0])
        return super().generic_visit(node)


def _value_of(node: ast.expr) -> tuple[Any] | None:
    """The value of an expression over constants and harmless built-in functions."""
    names = {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
    if not names <= _BUILTINS.keys() or any(isinstance(n, ast.Attribute) for n in ast.walk(node)):
        return None
    try:
        return (eval(compile(_whole(node), "<plain>", "eval"), {"__builtins__": {}, **_BUILTINS}),)
    except Exception:
        return None


def _is_literal(value: Any) -> bool:
    if isinstance(value, tuple):
        return all(map(_is_literal, value))
    return isinstance(value, (bool, int, float, str))


def literal(value: Any) -> ast.expr:
    """A plain value as an expression."""
    if isinstance(value, (tuple, list)):
        kind = ast.Tuple if isinstance(value, tuple) else ast.List
        return kind([literal(item) for item in value], ast.Load())
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        text = "np.nan" if value != value else "np.inf" if value > 0 else "-np.inf"
        return ast.parse(text, mode="eval").body
    if isinstance(value, (int, float)) and not isinstance(value, bool) and value < 0:
        return ast.UnaryOp(ast.USub(), ast.Constant(-value))
    return ast.Constant(value)


def _index(value: Any) -> ast.expr:
    """A value of an index: slices in Python's short form."""
    if isinstance(value, tuple):
        return ast.Tuple([_index(item) for item in value], ast.Load())
    if isinstance(value, slice):
        step = None if value.step in (None, 1) else literal(value.step)
        low = None if value.start in (None, 0) and (value.step or 1) > 0 else literal(value.start)
        return ast.Slice(low, None if value.stop is None else literal(value.stop), step)
    return ast.Constant(value) if value is Ellipsis or value is None else literal(value)


def with_operands(body: ast.expr, operands: Mapping[str, ast.expr]) -> ast.expr:
    """``body`` with expressions in place of parameters."""

    class Put(ast.NodeTransformer):
        def visit_Name(self, node: ast.Name) -> ast.expr:
            return copy.deepcopy(operands.get(node.id, node))

    made: ast.expr = Put().visit(copy.deepcopy(body))
    return made


def stored_names(statements: Sequence[ast.stmt]) -> set[str]:
    """Names that the statements assign."""
    return {
        node.id
        for statement in statements
        for node in ast.walk(statement)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    }
