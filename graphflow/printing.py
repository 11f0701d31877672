"""How a tensor prints: as PyTorch prints it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from graphflow.promotion import get_default_dtype

if TYPE_CHECKING:
    from graphflow.tensor import Tensor

_PROFILES = {
    "default": {"precision": 4, "threshold": 1000, "edgeitems": 3, "linewidth": 80},
    "short": {"precision": 2, "threshold": 1000, "edgeitems": 2, "linewidth": 80},
    "full": {"precision": 4, "threshold": sys.maxsize, "edgeitems": 3, "linewidth": 80},
}
_options = dict(_PROFILES["default"])
_style: list[str | None] = [None]
"""``e`` or ``f`` where one notation is asked for, else None: the numbers decide."""


def set_printoptions(
    precision: int | None = None,
    threshold: int | None = None,
    edgeitems: int | None = None,
    linewidth: int | None = None,
    profile: str | None = None,
    sci_mode: bool | None = None,
) -> None:
    """Digits after the point, when to summarise, how much of an edge to show, line width.

    ``profile`` ("default", "short" or "full") sets all of them first.  ``sci_mode`` is whether
    floats are written with an exponent; None: where that reads better.
    """
    _style[0] = None if sci_mode is None else "e" if sci_mode else "f"
    if profile is not None:
        if profile not in _PROFILES:
            raise ValueError(f"profile must be one of {', '.join(_PROFILES)}, not {profile!r}")
        _options.update(_PROFILES[profile])
    given = {
        "precision": precision,
        "threshold": threshold,
        "edgeitems": edgeitems,
        "linewidth": linewidth,
    }
    _options.update({name: value for name, value in given.items() if value is not None})


def tensor_repr(tensor: Tensor) -> str:
    """``tensor([[1., 2.]], requires_grad=True)``."""
    if tensor._cell.tracer is not None:
        node = tensor._array
        return f"tensor(<traced {node.type if node is not None else 'view'}>)"
    array = tensor._host()
    prefix = "tensor("
    suffixes = []
    if array.size == 0 and array.shape != (0,):
        suffixes.append(f"size={tuple(array.shape)}")
    dtype = tensor.dtype
    default = get_default_dtype()
    implied = {default.name, getattr(default.complex, "name", ""), "int64", "bool"}
    if dtype.name not in implied or (array.size == 0 and dtype is not default):
        suffixes.append(f"dtype={dtype!r}")
    if tensor.grad_fn is not None:
        suffixes.append(f"grad_fn={tensor.grad_fn!r}")
    elif tensor.requires_grad:
        suffixes.append("requires_grad=True")
    return _with_suffixes(prefix + _body(array, len(prefix)), suffixes, len(prefix))


def _with_suffixes(text: str, suffixes: list[str], indent: int) -> str:
    """Append what follows the values, on a new line where the last one is full."""
    for suffix in suffixes:
        last = len(text) - text.rfind("\n") - 1
        fits = last + len(suffix) + 2 <= _options["linewidth"]
        text += f", {suffix}" if fits else f",\n{' ' * indent}{suffix}"
    return text + ")"


def _body(array: np.ndarray[Any, Any], indent: int) -> str:
    if array.size == 0:
        return "[]"
    shown = array.astype(np.float32) if array.dtype.name == "bfloat16" else array
    brief = shown.size > _options["threshold"]
    text, width = _formatter(_edges(shown) if brief else shown)
    return _nest(shown, indent, brief, text, width)


def _nest(
    array: np.ndarray[Any, Any], indent: int, brief: bool, text: Callable[[Any], str], width: int
) -> str:
    """The values of ``array`` in brackets, dimension by dimension."""
    if array.ndim == 0:
        return text(array[()])
    edge, rank = _options["edgeitems"], array.ndim
    cut = brief and len(array) > 2 * edge
    rows = [*array[:edge], None, *array[len(array) - edge :]] if cut else list(array)
    gap = "," + "\n" * (rank - 1) + " " * (indent + 1)
    if rank > 1:
        parts = ["..." if r is None else _nest(r, indent + 1, brief, text, width) for r in rows]
        return "[" + gap.join(parts) + "]"
    items = [" ..." if r is None else text(r) for r in rows]
    step = max(1, (_options["linewidth"] - indent) // (width + 2))
    lines = [", ".join(items[i : i + step]) for i in range(0, len(items), step)]
    return "[" + (",\n" + " " * (indent + 1)).join(lines) + "]"


def _edges(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The values that a summary shows."""
    edge = _options["edgeitems"]
    for axis, extent in enumerate(array.shape):
        if extent > 2 * edge:
            kept = [*range(edge), *range(extent - edge, extent)]
            array = array.take(kept, axis)
    return array


def _formatter(array: np.ndarray[Any, Any]) -> tuple[Callable[[Any], str], int]:
    """One format for all values and its width: ``1.``, ``1.5000`` or ``1.0000e-09``."""
    if array.dtype.kind == "c":
        return _complex_formatter(array)
    if array.dtype.kind != "f":
        width = max(len(str(v)) for v in array.ravel().tolist())
        return lambda v: str(v.item()).rjust(width), width
    digits = _options["precision"]
    values = array[np.isfinite(array) & (array != 0)].astype(np.float64)
    whole = bool(np.all(values == np.trunc(values)))
    style = _style[0] or ("e" if _spread_out(np.abs(values), whole) else "f")

    def spell(value: Any) -> str:
        if whole and style == "f":
            return f"{value:.0f}." if np.isfinite(value) else f"{value:.0f}"
        return f"{value:.{digits}{style}}"

    width = max((len(spell(v)) for v in values.tolist()), default=1)
    return lambda v: spell(float(v)).rjust(width), width


def _complex_formatter(array: np.ndarray[Any, Any]) -> tuple[Callable[[Any], str], int]:
    """``1.+2.j``: each part in the format of its own."""
    (real, left), (imaginary, right) = (_formatter(part) for part in (array.real, array.imag))

    def spell(value: Any) -> str:
        second = imaginary(value.imag).lstrip()
        return real(value.real) + ("" if second[0] in "+-" else "+") + second + "j"

    return spell, left + right + 2


def _spread_out(sizes: np.ndarray[Any, Any], whole: bool) -> bool:
    """True when e-notation reads better: magnitudes far apart, or out of reach."""
    if not sizes.size:
        return False
    low, high = float(sizes.min()), float(sizes.max())
    return high / low > 1000 or high > 1e8 or (not whole and low < 1e-4)
