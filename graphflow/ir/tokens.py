"""One line of graph text as tokens, and errors that show it."""

from __future__ import annotations

import re
from typing import NoReturn

from graphflow.errors import GraphError
from graphflow.ir.literals import read_string

STRING = r'"(?:[^"\\]|\\.)*"'
_TOKEN = re.compile(
    rf"%(?:{STRING}|[A-Za-z_0-9.]+)(?:@\d+)?|{STRING}|\#.*|@[A-Za-z_0-9.]+"
    r"|[a-z]+\d*\[[^\]\[\"]*\]|const<[^>]*>|dim<[^>]*>"
    r"|[A-Za-z_][A-Za-z_0-9.]*|-?(?:0x[0-9a-fA-F]+|\d+(?:\.\d*)?(?:[eE][+-]?\d+)?)|-inf|\S"
)


class Line:
    """The tokens of one line and how far they are read."""

    __slots__ = ("at", "number", "text", "tokens")

    def __init__(self, text: str, number: int) -> None:
        self.text, self.number, self.at = text, number, 0
        self.tokens: list[str] = _TOKEN.findall(text)
        self.tokens.append("")

    def peek(self) -> str:
        """The next token; empty at the end of the line."""
        return self.tokens[self.at]

    def take(self) -> str:
        """The next token, read."""
        token = self.tokens[self.at]
        if token:
            self.at += 1
        return token

    def accept(self, token: str) -> bool:
        """Read ``token`` if it comes next."""
        if self.tokens[self.at] != token:
            return False
        self.at += 1
        return True

    def expect(self, token: str) -> None:
        """Read ``token`` or fail."""
        if self.tokens[self.at] != token:
            self.fail(f"{token!r}")
        self.at += 1

    def end(self) -> None:
        """Nothing but a comment may follow."""
        token = self.peek()
        if token and token[0] != "#":
            self.fail("the end of the line")

    def string(self, token: str) -> str:
        """What a quoted token spells."""
        try:
            return read_string(token)
        except GraphError as error:
            self.error(str(error))

    def fail(self, expected: str) -> NoReturn:
        """Raise: ``expected`` is not what comes next."""
        found = self.peek()
        self.error(f"expected {expected}, found {repr(found) if found else 'the end of the line'}")

    def error(self, message: str) -> NoReturn:
        """Raise with the line."""
        raise GraphError(f"line {self.number}: {message}\n    {self.text.strip()}") from None
