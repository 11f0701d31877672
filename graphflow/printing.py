"""How a tensor prints: as PyTorch prints it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from graphflow.promotion import get_default_dtype

if TYPE_CHECKING:
    from graphflow.tensor import Tensor

_options = {"precision": 4, "threshold": 1000, "edgeitems": 3, "linewidth": 80}


def set_printoptions(
    precision: int | None = None,
    threshold: int | None = None,
    edgeitems: int | None = None,
    linewidth: int | None = None,
) -> None:
    """Digits after the point, when to summarise, how much of an edge to show, line width."""
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
    array = tensor._eager()
    parts = [_body(array)]
    if array.size == 0 and array.shape != (0,):
        parts.append(f"size={tuple(array.shape)}")
    dtype = tensor.dtype
    implied = {get_default_dtype().name, "int64", "bool"}
    if dtype.name not in implied or (array.size == 0 and dtype is not get_default_dtype()):
        parts.append(f"dtype={dtype!r}")
    if tensor.grad_fn is not None:
        parts.append(f"grad_fn={tensor.grad_fn!r}")
    elif tensor.requires_grad:
        parts.append("requires_grad=True")
    return f"tensor({', '.join(parts)})"


def _body(array: np.ndarray[Any, Any]) -> str:
    if array.size == 0:
        return "[]"
    shown = array.astype(np.float32) if array.dtype.name == "bfloat16" else array
    formatter: Any = {}
    if shown.dtype.kind == "f":
        formatter = {"float_kind": _float_format(shown)}
    return np.array2string(
        shown,
        separator=", ",
        prefix="tensor(",
        threshold=_options["threshold"],
        edgeitems=_options["edgeitems"],
        max_line_width=_options["linewidth"],
        formatter=formatter,
    )


def _float_format(array: np.ndarray[Any, Any]) -> Any:
    """One format for all elements: whole numbers as ``1.``, wide ranges in e-notation."""
    digits = _options["precision"]
    finite = np.abs(array[np.isfinite(array)].astype(np.float64))
    finite = finite[finite > 0]
    if np.all(np.isfinite(array)) and np.all(array == np.trunc(array)) and not (finite > 1e8).any():
        texts = [f"{v:.0f}." for v in _shown(array)]
        width = max(map(len, texts))
        return lambda v: f"{v:.0f}.".rjust(width)
    wide = finite.size and (
        finite.max() / finite.min() > 1000 or finite.max() > 1e8 or finite.min() < 1e-4
    )
    style = "e" if wide else "f"
    width = max(len(f"{v:.{digits}{style}}") for v in _shown(array))
    return lambda v: f"{v:.{digits}{style}}".rjust(width)


def _shown(array: np.ndarray[Any, Any]) -> list[float]:
    flat = array.ravel()
    if flat.size > _options["threshold"]:
        flat = np.concatenate([flat[:100], flat[-100:]])
    return [float(v) for v in flat]
