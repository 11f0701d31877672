"""Imports go one way: ir ← passes ← codegen ← runtime ← front ← libraries.

Function-level imports count too: a lazy import the other way is still a
dependency.
"""

import ast
import pathlib
from collections.abc import Iterator

import pytest
from test_budget import inside

ROOT = pathlib.Path(__file__).parent.parent / "graphflow"

# Lower number = lower layer.  A module may import its own layer and those below.
BOTTOM, IR, PASSES, CODEGEN, RUNTIME, FRONT, LIBRARIES, TOOLS = range(8)
PACKAGES = {"ir": IR, "passes": PASSES, "codegen": CODEGEN, "runtime": RUNTIME}
BOTTOM_MODULES = {"digests", "errors", "flags", "records", "tables", "version"}
FILES = {"graphflow.serialization.safetensors", "graphflow.serialization.atomic"}  # bytes only
LIBRARY_PACKAGES = {
    "ao",
    "distributed",
    "distributions",
    "func",
    "hub",
    "inspect",
    "nn",
    "onnx",
    "optim",
    "quantization",
    "serialization",
    "training",
    "utils",
    "vision",
}
TOOL_PACKAGES = {"cli", "__main__"}


def layer(module: str) -> int:
    """The layer of ``graphflow.<first>...``, given its dotted name."""
    parts = module.split(".")
    first = parts[1] if len(parts) > 1 else ""
    if module in FILES:
        return IR
    if first in BOTTOM_MODULES:
        return BOTTOM
    if first in PACKAGES:
        return PACKAGES[first]
    if first in LIBRARY_PACKAGES or first == "":
        return LIBRARIES
    return TOOLS if first in TOOL_PACKAGES else FRONT


def dotted(path: pathlib.Path, root: pathlib.Path) -> str:
    """Module name of a file under ``root`` (the ``graphflow`` folder)."""
    parts = ["graphflow", *path.relative_to(root).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def is_type_checking(node: ast.AST) -> bool:
    """True for ``if TYPE_CHECKING:``, whose imports do not happen."""
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def imported(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Every ``graphflow`` module a tree imports at run time, with its line."""
    stack: list[ast.AST] = [tree]
    while stack:
        node = stack.pop()
        if isinstance(node, ast.Import):
            yield from ((node.lineno, a.name) for a in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                yield node.lineno, "relative"
            elif node.module == "graphflow":
                yield from ((node.lineno, f"graphflow.{a.name}") for a in node.names)
            else:
                yield node.lineno, node.module or ""
        elif is_type_checking(node):
            stack.extend(getattr(node, "orelse", []))
            continue
        stack.extend(inside(node))


def violations(root: pathlib.Path) -> list[str]:
    """Each upward or relative import under ``root``, as ``file:line message``."""
    found = []
    for path in sorted(root.rglob("*.py")):
        module = dotted(path, root)
        if module == "graphflow":
            continue  # the package's __init__ only re-exports
        for line, target in imported(ast.parse(path.read_text())):
            place = f"{path.relative_to(root)}:{line}"
            if target == "relative":
                found.append(f"{place} relative import; write the full module name")
            elif target.split(".")[0] == "graphflow" and layer(target) > layer(module):
                found.append(f"{place} {module} must not import {target}")
    return found


def test_imports_go_one_way() -> None:
    assert violations(ROOT) == []


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("ir/node.py", "from graphflow.passes import base"),
        ("passes/dce.py", "def f():\n    import graphflow.codegen.writer"),
        ("codegen/lower.py", "from graphflow.tensor import Tensor"),
        ("runtime/tape.py", "from graphflow import nn"),
        ("tensor.py", "from graphflow.nn import Module"),
        ("nn/module.py", "from graphflow.cli import main"),
        ("ir/node.py", "from .op import OpDef"),
    ],
)
def test_an_upward_import_is_found(tmp_path: pathlib.Path, file: str, text: str) -> None:
    path = tmp_path / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    assert len(violations(tmp_path)) == 1


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("passes/dce.py", "from graphflow.ir.graph import Graph\nfrom graphflow.errors import X"),
        ("nn/module.py", "from graphflow.tensor import Tensor\nimport numpy"),
        ("ir/a.py", "if TYPE_CHECKING:\n    from graphflow.runtime.tape import Tape"),
    ],
)
def test_a_downward_import_is_fine(tmp_path: pathlib.Path, file: str, text: str) -> None:
    path = tmp_path / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    assert violations(tmp_path) == []


def test_package_inits_only_re_export() -> None:
    allowed = (
        ast.Import, ast.ImportFrom, ast.Assign, ast.AnnAssign, ast.AugAssign, ast.FunctionDef,
        ast.Expr,
    )  # fmt: skip
    for path in ROOT.rglob("__init__.py"):
        for node in ast.parse(path.read_text()).body:
            fine = isinstance(node, allowed) or is_type_checking(node)
            assert fine, f"{path}:{node.lineno} has logic"
            if isinstance(node, ast.FunctionDef):  # PEP 562 lazy re-exports
                assert node.name in {"__getattr__", "__dir__"}, f"{path}:{node.lineno}"
