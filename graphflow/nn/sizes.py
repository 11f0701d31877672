"""Sizes that are given as one number for every dimension, or one a dimension."""

from __future__ import annotations

from typing import Any

from graphflow.checks import need_int


def per_dimension(name: str, what: str, value: Any, dims: int, low: int) -> tuple[int, ...]:
    """``value`` as ``dims`` whole numbers, each at least ``low``.

    One number, or one in a tuple, counts for every dimension.
    """
    if isinstance(value, (tuple, list)):
        if len(value) not in (1, dims):
            raise ValueError(f"{name}: {what} must be one number or {dims}, not {value!r}")
        values = tuple(value) * (dims // len(value))
    else:
        values = (value,) * dims
    return tuple(need_int(f"{name}: {what}", number, low) for number in values)
