"""The entries that are measured and their samples, seeds fixed."""

from __future__ import annotations

import copy
import functools
import itertools
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.testing._internal.common_methods_invocations import op_db

from tests.conformance import table

SAMPLES = 6
UNKNOWN_SIZE = frozenset({
    "argwhere", "bincount", "masked_select", "nonzero", "unique", "unique_consecutive",
})  # fmt: skip
"""Operations whose result's shape depends on values; compiled code has fixed shapes."""


@functools.cache
def entries() -> dict[str, Any]:
    """Every entry: ``name`` or ``name:variant`` to its OpInfo; other names to what they name."""
    wanted = {*table.names("entries.txt"), *table.names("beside.txt")}
    found = {key_of(info): info for info in op_db if info.name in wanted and _dtype(info)}
    for info in op_db:
        for alias in info.aliases:
            if alias.name in wanted and not info.variant_test_name:
                found[alias.name] = _renamed(info, alias)
    return found


def _renamed(info: Any, alias: Any) -> Any:
    """The entry of another name for the same operation."""
    other = copy.copy(info)
    other.name, other.op = alias.name, alias.op
    other.inplace_variant = alias.inplace_variant
    other.error_inputs_func = None
    return other


def _dtype(info: Any) -> torch.dtype | None:
    """What its samples are made of: float32, else int64."""
    return next((d for d in (torch.float32, torch.int64) if d in info.dtypes), None)


def key_of(info: Any) -> str:
    """``name``, or ``name:variant``."""
    return info.name + (f":{info.variant_test_name}" if info.variant_test_name else "")


def without_samples() -> list[str]:
    """Names of the list that this version of PyTorch has no samples of."""
    known = {info.name for info in op_db}
    return [name for name in table.names("entries.txt") if name not in known]


def differentiable(info: Any) -> bool:
    """Whether there are gradients in PyTorch, and samples to take them of."""
    return bool(info.supports_autograd) and _dtype(info) is torch.float32


def seed() -> None:
    """The same random numbers everywhere."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


def samples(info: Any, requires_grad: bool) -> list[Any]:
    """The database's first samples of an entry, on the CPU; none that draw at random."""
    seed()
    drawn = info.sample_inputs("cpu", _dtype(info), requires_grad=requires_grad)
    sure = (sample for sample in drawn if not sample.kwargs.get("dropout_p"))
    return list(itertools.islice(sure, SAMPLES))


def error_samples(info: Any) -> Iterator[Any]:
    """The entry's inputs that must raise."""
    seed()
    yield from info.error_inputs("cpu") if info.error_inputs_func is not None else ()


def unknown_size(name: str, arguments: Any) -> bool:
    """Whether the shape of the result depends on values in this call."""
    args, kwargs = arguments
    if name == "__getitem__":
        index = args[1] if isinstance(args[1], tuple | list) else (args[1],)
        return any(isinstance(i, torch.Tensor) and i.dtype is torch.bool for i in index)
    if name in ("repeat_interleave", "tensor_split"):
        given = [*args[1:2], kwargs.get("repeats")]
        known = isinstance(kwargs.get("output_size"), int)
        return any(isinstance(x, torch.Tensor) for x in given) and not known
    return name in UNKNOWN_SIZE or (name == "where" and len(args) + len(kwargs) == 1)
