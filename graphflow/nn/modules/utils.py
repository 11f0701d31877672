"""Sizes of windows as layers of one's own spell them: ``_pair(3)`` is ``(3, 3)``."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import repeat
from typing import Any

__all__ = [
    "_ntuple", "_pair", "_quadruple", "_reverse_repeat_tuple", "_single", "_triple",
]  # fmt: skip


def _ntuple(n: int, name: str = "parse") -> Callable[[Any], tuple[Any, ...]]:
    """A function that repeats one value ``n`` times and makes a tuple of several."""

    def parse(x: Any) -> tuple[Any, ...]:
        return tuple(x) if isinstance(x, Iterable) else tuple(repeat(x, n))

    parse.__name__ = name
    return parse


_single = _ntuple(1, "_single")
_pair = _ntuple(2, "_pair")
_triple = _ntuple(3, "_triple")
_quadruple = _ntuple(4, "_quadruple")


def _reverse_repeat_tuple(t: Iterable[Any], n: int) -> tuple[Any, ...]:
    """Each value ``n`` times, the last first: padding by dimension as ``F.pad`` takes it."""
    return tuple(x for x in reversed(tuple(t)) for _ in range(n))
