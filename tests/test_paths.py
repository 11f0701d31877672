"""What a function's bytecode names: variables, attributes of them, and what is done with those."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from graphflow.paths import names_in

outer: Any = None
"""A variable that the functions below name."""


def plain(self: Any, x: Any) -> Any:
    return x * self.options.rate


def handed_on(self: Any, x: Any) -> Any:
    return outer(self, x.data)


def looked_up(self: Any) -> Any:
    return self.table[0].rate


def assigned(self: Any) -> None:
    self.count = outer.start
    self.total += 1


def alias(self: Any) -> Any:
    a = b = self.options
    return a.rate, b.width


def either(self: Any) -> None:
    options = self.first if outer else self.second
    for _ in outer:
        outer(options.rate)


def repeated(node: Any) -> Any:
    while outer:
        node = node.next
    return node.rate


def below(tree: Any) -> Any:
    node = tree.head
    while outer:
        node = node.next
    return node.rate


def inside(self: Any, items: Any) -> Any:
    options = self.options
    return [options.rate * item.width for item in items], lambda: self.depth


def by_name(self: Any) -> Any:
    return getattr(self, "rate")  # noqa: B009


class Base:
    def method(self: Any) -> Any:
        return super().method().result


CASES: list[tuple[Callable[..., Any], set[str], set[str], dict[str, bool]]] = [
    # used, only passed through, loose (and whether more than called)
    (plain, {"x", "self.options.rate"}, {"self", "self.options"}, {}),
    (handed_on, {"outer", "self", "x.data"}, {"x"}, {}),
    (looked_up, {"self.table"}, {"self"}, {"rate": True}),
    (assigned, {"outer.start", "self.total"}, {"self", "outer"}, {}),
    (alias, {"self.options.rate", "self.options.width"}, {"self", "self.options"}, {}),
    (either, {"self.first", "self.second.rate", "outer"}, {"self", "self.second"}, {"rate": True}),
    (repeated, {"outer", "node.rate", "node.next"}, {"node"}, {"next": True, "rate": True}),
    (below, {"outer", "tree.head.rate", "tree.head.next"}, {"tree", "tree.head"},
     {"next": True, "rate": True}),
    (inside, {"items", "self.options.rate", "self.depth"}, {"self", "self.options"},
     {"width": True}),
    (by_name, {"getattr", "self"}, set(), {}),
]  # fmt: skip


@pytest.mark.parametrize("function", [case[0] for case in CASES], ids=lambda f: f.__name__)
def test_paths(function: Callable[..., Any]) -> None:
    _, used, passed, loose = next(case for case in CASES if case[0] is function)
    names = names_in(function.__code__)
    found = {".".join((path.variable, *path.attributes)): used for path, used in names.paths}
    assert used == {path for path, is_used in found.items() if is_used}
    assert passed <= found.keys() - used
    assert dict(names.loose) == loose


def test_strings_count_where_attributes_are_looked_for_by_them() -> None:
    assert names_in(by_name.__code__).texts == ("rate",)
    assert names_in(plain.__code__).texts == ()


def test_methods_of_the_base_class_are_told_apart() -> None:
    names = names_in(Base.method.__code__)
    assert names.inherited == ("method",)
    assert dict(names.loose) == {"result": True}
    assert not any(used and path.variable == "self" for path, used in names.paths)


def test_attributes_that_are_only_called_are_told_apart() -> None:
    names = names_in((lambda x: outer(x).sum() + outer(x).total).__code__)
    assert dict(names.loose) == {"sum": False, "total": True}
