"""NumPy as people write it: ``a + b`` for ``np.add(a, b)``, ``w.T`` for ``w.transpose((1, 0))``."""

from __future__ import annotations

import ast

_INFIX: dict[str, ast.operator] = {
    "add": ast.Add(), "subtract": ast.Sub(), "multiply": ast.Mult(), "divide": ast.Div(),
    "matmul": ast.MatMult(), "power": ast.Pow(), "bitwise_and": ast.BitAnd(),
    "bitwise_or": ast.BitOr(), "bitwise_xor": ast.BitXor(),
}  # fmt: skip
_COMPARED: dict[str, ast.cmpop] = {
    "equal": ast.Eq(), "not_equal": ast.NotEq(), "less": ast.Lt(), "less_equal": ast.LtE(),
    "greater": ast.Gt(), "greater_equal": ast.GtE(),
}  # fmt: skip
_FOLDS = {"add": "sum", "maximum": "max", "minimum": "min", "multiply": "prod"}


class Spelling(ast.NodeTransformer):
    """Rewrites calls, innermost first."""

    def visit_Call(self, node: ast.Call) -> ast.expr:
        """A call as an operator, an attribute or a shorter call, where there is one."""
        self.generic_visit(node)
        function = node.func
        if not isinstance(function, ast.Attribute):
            return node
        if isinstance(function.value, ast.Name) and function.value.id == "np":
            return self._called(node, function.attr)
        if function.attr == "transpose" and len(node.args) == 1:
            if ast.unparse(node.args[0]) == "(1, 0)":
                return ast.Attribute(function.value, "T", ast.Load())
        if function.attr == "reduce" and isinstance(function.value, ast.Attribute):
            name = _FOLDS.get(function.value.attr)
            if name is not None:
                numpy = ast.Attribute(ast.Name("np", ast.Load()), name, ast.Load())
                return ast.Call(numpy, node.args, node.keywords)
        return node

    def _called(self, node: ast.Call, name: str) -> ast.expr:
        if node.keywords or len(node.args) not in (1, 2):
            return node
        if name == "negative":
            return ast.UnaryOp(ast.USub(), node.args[0])
        if len(node.args) == 2 and name in _INFIX:
            return ast.BinOp(node.args[0], _INFIX[name], node.args[1])
        if len(node.args) == 2 and name in _COMPARED:
            return ast.Compare(node.args[0], [_COMPARED[name]], [node.args[1]])
        return node


def wrapped(line: str, width: int = 100) -> str:
    """One statement on several lines if it is long: broken at the commas in its first bracket."""
    if len(line) <= width:
        return line
    indent = line[: len(line) - len(line.lstrip())]
    found = _first_bracket(line)
    if found is None:
        return line
    pieces, begin, end = found
    inner = _filled(pieces, width - len(indent) - 5)
    lines = [f"{indent}    {text}," for text in inner[:-1]] + [f"{indent}    {inner[-1]}"]
    rest = f"{indent}{line[end:]}"
    return "\n".join([line[:begin], *(wrapped(x, width) for x in lines), wrapped(rest, width)])


def _first_bracket(line: str) -> tuple[list[str], int, int] | None:
    """The pieces between commas in the first bracket that holds something, and where it is."""
    depth, begin, last, quote = 0, -1, 0, ""
    pieces: list[str] = []
    for place, letter in enumerate(line):
        if quote:
            quote = "" if letter == quote and line[place - 1] != "\\" else quote
        elif letter in "'\"":
            quote = letter
        elif letter in "([{":
            depth += 1
            if depth == 1 and line[place + 1] not in ")]}":
                begin = last = place + 1
        elif letter == "," and depth == 1 and begin >= 0:
            pieces.append(line[last:place].strip())
            last = place + 1
        elif letter in ")]}":
            depth -= 1
            if depth == 0 and begin >= 0:
                pieces.append(line[last:place].strip())
                return [p for p in pieces if p], begin, place
    return None


def _filled(pieces: list[str], width: int) -> list[str]:
    """Pieces put together as long as they fit."""
    lines: list[str] = []
    for piece in pieces:
        if lines and len(lines[-1]) + len(piece) + 2 <= width:
            lines[-1] += f", {piece}"
        else:
            lines.append(piece)
    return lines
