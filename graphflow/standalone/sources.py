"""The source of functions as syntax trees, and what their names refer to."""

from __future__ import annotations

import ast
import builtins
import inspect
import sys
from collections.abc import Callable, Mapping
from functools import cache
from types import CodeType
from typing import Any, TypeAlias

from graphflow.errors import GraphFlowError

_OURS = "graphflow"
Function: TypeAlias = "ast.FunctionDef | ast.Lambda"


@cache
def module_tree(name: str) -> ast.Module:
    """The syntax tree of an imported module."""
    return ast.parse(inspect.getsource(sys.modules[name]))


def tree_of(function: Callable[..., Any]) -> Function:
    """The definition of a Python function or lambda, in its module's tree."""
    code: CodeType = function.__code__
    found = [
        node
        for node in ast.walk(module_tree(function.__module__))
        if isinstance(node, (ast.FunctionDef, ast.Lambda)) and _begins_at(node, code)
    ]
    if not found:
        raise GraphFlowError(f"the source of {function.__qualname__} cannot be found")
    return found[0]


def _begins_at(node: Function, code: CodeType) -> bool:
    names = [a.arg for a in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
    count = code.co_argcount + code.co_kwonlyargcount
    if names != list(code.co_varnames[:count]):
        return False
    if isinstance(node, ast.Lambda):
        return code.co_name == "<lambda>" and node.lineno == code.co_firstlineno
    first = min([node.lineno, *(d.lineno for d in node.decorator_list)])
    return node.name == code.co_name and first == code.co_firstlineno


def class_tree(cls: type) -> ast.ClassDef:
    """The definition of a class at the top of its module."""
    for node in module_tree(cls.__module__).body:
        if isinstance(node, ast.ClassDef) and node.name == cls.__name__:
            return node
    raise GraphFlowError(f"the source of {cls.__qualname__} cannot be found")


def values_of(function: Callable[..., Any]) -> Mapping[str, Any]:
    """The values of names that a function finds outside: its closure's, then its module's."""
    closure = function.__closure__ or ()
    free = dict(zip(function.__code__.co_freevars, (cell.cell_contents for cell in closure)))
    return {**vars(builtins), **function.__globals__, **free}


def assignment_of(module: str, name: str) -> ast.Assign | None:
    """The statement at the top of a module, or of the one it imports ``name`` from."""
    for statement in module_tree(module).body:
        if isinstance(statement, ast.AnnAssign) and statement.value is not None:
            statement = ast.Assign([statement.target], statement.value)
            ast.fix_missing_locations(statement)
        if isinstance(statement, ast.Assign):
            names = {
                n.id for t in statement.targets for n in ast.walk(t) if isinstance(n, ast.Name)
            }
            if name in names:
                return statement
        if isinstance(statement, ast.ImportFrom) and (statement.module or "").startswith(_OURS):
            assert statement.module is not None
            if any(alias.name == name and alias.asname is None for alias in statement.names):
                return assignment_of(statement.module, name)
    return None
