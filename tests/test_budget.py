"""Small files, small functions, short lines: the budget that keeps the house readable."""

import ast
import pathlib
from collections.abc import Iterator

import pytest

ROOT = pathlib.Path(__file__).parent.parent
FOLDERS = ("graphflow", "models", "benchmarks", "tests")
FILE_LINES, FUNCTION_LINES, COLUMNS = 500, 60, 100


def inside(block: ast.AST) -> Iterator[ast.AST]:
    """The statements in a block; expressions, most of a tree, are passed over."""
    for field in ("body", "orelse", "finalbody", "handlers", "cases"):
        yield from getattr(block, field, ())


def statements(block: ast.AST) -> Iterator[ast.AST]:
    """All statements in a block, however deep."""
    for child in inside(block):
        yield child
        yield from statements(child)


def excesses(path: pathlib.Path) -> list[str]:
    """What in this file is over budget."""
    text = path.read_text()
    lines = text.splitlines()
    found = []
    if len(lines) > FILE_LINES:
        found.append(f"{path}: {len(lines)} lines (at most {FILE_LINES})")
    for number, line in enumerate(lines, 1):
        if len(line) > COLUMNS:
            found.append(f"{path}:{number}: {len(line)} columns (at most {COLUMNS})")
    if len(lines) <= FUNCTION_LINES:
        return found
    for node in statements(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > FUNCTION_LINES:
                where = f"{path}:{node.lineno} {node.name}"
                found.append(f"{where}: {length} lines (at most {FUNCTION_LINES})")
    return found


def test_everything_is_within_budget() -> None:
    files = [p for folder in FOLDERS for p in sorted((ROOT / folder).rglob("*.py"))]
    assert len(files) > 20
    assert [line for path in files for line in excesses(path)] == []


@pytest.mark.parametrize(
    "text",
    [
        "x = 1\n" * (FILE_LINES + 1),
        "x = '" + "a" * COLUMNS + "'\n",
        "def f():\n" + "    x = 1\n" * FUNCTION_LINES,
        "try:\n    a\nexcept E:\n    def f():\n" + "        x = 1\n" * FUNCTION_LINES,
        "match a:\n    case 1:\n        def f():\n" + "            x = 1\n" * FUNCTION_LINES,
    ],
)
def test_an_excess_is_found(tmp_path: pathlib.Path, text: str) -> None:
    path = tmp_path / "a.py"
    path.write_text(text)
    assert len(excesses(path)) == 1
