"""Loops and branches of exported programs; regions are functions that return tuples."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

Array = Any
Region = Callable[..., tuple[Array, ...]]


def scan(
    *operands: Array, body: Region, carried: int, scanned: int, length: int, reverse: bool
) -> tuple[Array, ...]:
    """Run ``body`` once for every row; the last carried values, then stacked results."""
    values = operands[:carried]
    rows, fixed = operands[carried : carried + scanned], operands[carried + scanned :]
    found: list[Any] = [None] * length
    for i in reversed(range(length)) if reverse else range(length):
        results = body(*values, *(row[i] for row in rows), *fixed)
        values, found[i] = results[:carried], results[carried:]
    return (*values, *map(np.stack, zip(*found)))


def while_loop(
    *operands: Array, condition: Region, body: Region, carried: int
) -> tuple[Array, ...]:
    """Run ``body`` on the carried values as long as the condition holds."""
    values, fixed = operands[:carried], operands[carried:]
    while condition(*values, *fixed)[0]:
        values = body(*values, *fixed)
    return values


def cond(condition: Array, *operands: Array, then: Region, otherwise: Region) -> tuple[Array, ...]:
    """Run one of two functions."""
    return then(*operands) if condition else otherwise(*operands)


SPELLED = {"scan": scan, "while_loop": while_loop, "cond": cond}
"""In place of the references of these operations."""
