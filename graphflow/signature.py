"""What of a call's arguments a compiled program depends on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from graphflow import pytree
from graphflow.argument_memory import shared_cells
from graphflow.device import device_of
from graphflow.errors import GraphFlowError
from graphflow.functions.creation import from_numpy
from graphflow.guards import Described
from graphflow.ir.node import attrs_key, value_key
from graphflow.specs import Static
from graphflow.tensor import Tensor


def groups_by_memory(leaves: Sequence[Any]) -> list[list[int]]:
    """Positions of tensors that show the same memory, where there is more than one."""
    groups: dict[Any, list[int]] = {}
    for i, leaf in enumerate(leaves):
        if isinstance(leaf, Tensor):
            groups.setdefault(leaf._cell, []).append(i)
    return [group for group in groups.values() if len(group) > 1]


def signature_of(leaves: Sequence[Any]) -> tuple[Any, ...]:
    """What of the arguments a program depends on; a hashable key."""
    cells: dict[Any, int] = {}
    shared = shared_cells(leaves)
    parts: list[Any] = []
    for leaf in leaves:
        if isinstance(leaf, Tensor):
            array = leaf._eager()
            alias = cells.setdefault(leaf._cell, len(cells))
            chain: tuple[Any, ...] = ()
            if leaf._cell in shared:
                chain = tuple((step.op.name, attrs_key(step.attrs)) for step in leaf._chain)
            dtype: Any = array.dtype
            if array.__class__ is not np.ndarray:
                dtype = (dtype, str(device_of(array)))
            parts.append((dtype, array.shape, leaf._requires_grad, alias, chain))
        elif type(leaf) is float:
            parts.append(float)
        elif isinstance(leaf, Static):
            parts.append(("static", value_key(leaf.value)))
        else:
            parts.append((type(leaf), leaf))
    return tuple(parts)


def spec_of(leaf: Any) -> tuple[Any, Any, Any]:
    """What a leaf must look like for the quick path.

    (NumPy dtype, shape, requires grad) of a tensor; (float, …) for a run-time
    scalar; (None, class, value) for anything static.
    """
    if isinstance(leaf, Tensor):
        array = leaf._eager()
        return (array.dtype, array.shape, leaf._requires_grad)
    if type(leaf) is float:
        return (float, (), False)
    return (None, type(leaf), leaf)


def describe(leaf: Any) -> Described:
    """A leaf as messages show it."""
    if isinstance(leaf, Tensor):
        grad = " requiring grad" if leaf._requires_grad else ""
        return Described(f"{leaf._type_now()}{grad}")
    if isinstance(leaf, Static):
        return Described(repr(leaf.value))
    return Described("float" if type(leaf) is float else repr(leaf))


def flat_arguments(
    args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[list[Any], pytree.Structure]:
    """The leaves of a call's arguments, keywords in one order however they were given."""
    leaves, shape = pytree.flatten((args, {name: kwargs[name] for name in sorted(kwargs)}))
    return [_as_argument(leaf) for leaf in leaves], shape


def _as_argument(leaf: Any) -> Any:
    """NumPy arrays as tensors over their memory, NumPy numbers as Python's."""
    if isinstance(leaf, np.ndarray):
        return from_numpy(leaf)
    return leaf.item() if isinstance(leaf, (np.number, np.bool_)) else leaf


def place_of(function: Any) -> str:
    """Where a function was defined: file and line."""
    while hasattr(function, "func"):
        function = function.func
    code = getattr(getattr(function, "__func__", function), "__code__", None)
    if code is None:
        code = getattr(getattr(type(function), "forward", None), "__code__", None)
    return f"{code.co_filename}:{code.co_firstlineno}" if code is not None else ""


def without_sizes(signature: tuple[Any, ...]) -> tuple[Any, ...]:
    """A signature with ranks in place of shapes: what calls of any sizes have in common."""
    return tuple(
        (part[0], len(part[1]), *part[2:]) if isinstance(part, tuple) and len(part) == 5 else part
        for part in signature
    )


def check_arguments(leaves: Sequence[Any]) -> None:
    """Refuse what can be no argument of a compiled call."""
    for leaf in leaves:
        try:
            hash(leaf)
        except TypeError:
            raise GraphFlowError(
                f"a compiled function cannot take a {type(leaf).__name__}: arguments are tensors, "
                "NumPy arrays, numbers, strings, hashable objects, and nests of them"
            ) from None


def difference(
    before: Mapping[str, Described], now: Mapping[str, Described]
) -> tuple[str, Described, Described] | None:
    """The first of named arguments that is described otherwise than ``before``, from what, to what;
    the names themselves if those are others."""
    for name, text in now.items():
        if name in before and before[name] != text:
            return name, before[name], text
    if before and list(before) != list(now):
        return "the structure of the arguments", _names(before), _names(now)
    return None


def _names(described: Mapping[str, Described]) -> Described:
    return Described(", ".join(described))
