"""Functions with room on the interpreter's stack of frames."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest

from graphflow.stack import with_room

resource = pytest.importorskip("resource")


def faults() -> int:
    """Pages of memory that this process has touched for the first time."""
    return int(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)


def small(a: int = 1, b: int = 2, c: int = 3) -> int:
    return a + b + c


def busy() -> int:
    before = faults()
    for _ in range(500):
        small()
    return faults() - before


def at_depth(depth: int) -> int:
    return at_depth(depth - 1) if depth else busy()


def most_faults() -> int:
    """Of 500 calls of a function, at any of 250 depths of the stack."""
    return max(at_depth(depth) for depth in range(250))


@pytest.mark.skipif(sys.implementation.name != "cpython", reason="of CPython's frames")
def test_calls_take_no_memory_from_the_system_where_there_is_room() -> None:
    most_faults()  # objects and code are there after that
    assert with_room(most_faults)() < 250


def test_the_function_is_the_same_otherwise() -> None:
    @with_room
    def joined(a: str, *more: str, end: str = ".") -> str:
        """Text."""
        if not a:
            raise ValueError("nothing")
        return a + "".join(more) + end

    assert joined("a", "b", end="!") == "ab!"
    assert joined.__name__ == "joined" and joined.__doc__ == "Text."
    with pytest.raises(ValueError, match="nothing"):
        joined("")

    @with_room
    def countdown(n: int) -> int:
        return countdown(n - 1) + 1 if n else 0

    made: Callable[[int], int] = countdown
    assert made(50) == 50
