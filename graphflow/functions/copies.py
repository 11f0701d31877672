"""Views as tensors of their own (``expand_copy`` is ``expand``, copied), and files as tensors."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np

from graphflow.checks import need_int
from graphflow.errors import GraphFlowError
from graphflow.functions.complex_numbers import view_as_complex, view_as_real
from graphflow.functions.creation import from_numpy
from graphflow.functions.diagonals import diagonal
from graphflow.functions.manipulation import clone
from graphflow.functions.shaping import (
    expand,
    narrow,
    permute,
    select,
    split,
    split_with_sizes,
    squeeze,
    t,
    transpose,
    unbind,
    unfold,
    unsqueeze,
    view,
)
from graphflow.functions.striding import as_strided
from graphflow.ir.types import DType
from graphflow.promotion import get_default_dtype
from graphflow.tensor import Tensor


def _copied(function: Callable[..., Any]) -> Callable[..., Any]:
    def copied(*args: Any, **kwargs: Any) -> Any:
        found = function(*args, **kwargs)
        return tuple(map(clone, found)) if isinstance(found, tuple) else clone(found)

    copied.__name__ = copied.__qualname__ = f"{function.__name__}_copy"
    copied.__doc__ = f"What :func:`{function.__name__}` gives, in memory of its own."
    return copied


def alias_copy(input: Tensor) -> Tensor:
    """The tensor in memory of its own."""
    return clone(input)


def detach_copy(input: Tensor) -> Tensor:
    """The tensor in memory of its own, without history."""
    return clone(input.detach())


as_strided_copy = _copied(as_strided)
diagonal_copy = _copied(diagonal)
expand_copy = _copied(expand)
narrow_copy = _copied(narrow)
permute_copy = _copied(permute)
select_copy = _copied(select)
split_copy = _copied(split)
split_with_sizes_copy = _copied(split_with_sizes)
squeeze_copy = _copied(squeeze)
t_copy = _copied(t)
transpose_copy = _copied(transpose)
unbind_copy = _copied(unbind)
unfold_copy = _copied(unfold)
unsqueeze_copy = _copied(unsqueeze)
view_copy = _copied(view)
view_as_complex_copy = _copied(view_as_complex)
view_as_real_copy = _copied(view_as_real)


def from_file(
    filename: str | os.PathLike[str], shared: bool = False, size: int = 0, *,
    dtype: DType | None = None,
) -> Tensor:  # fmt: skip
    """The first ``size`` elements of a file, mapped into memory, as a vector of ``dtype``.

    ``shared``: what is written to the tensor is written to the file, which grows to hold it.
    """
    kind = dtype or get_default_dtype()
    count = need_int("from_file: size", size, 0)
    present = os.path.getsize(filename) if os.path.exists(filename) else 0
    needed = count * kind.itemsize
    if needed > present and not shared:
        raise GraphFlowError(
            f"from_file: {os.fspath(filename)} has {present} bytes, and {needed} are asked for"
        )
    if not count:
        return from_numpy(np.zeros(0, kind.numpy))
    mode: Any = "c" if not shared else ("r+" if present else "w+")
    return from_numpy(np.memmap(filename, kind.numpy, mode, shape=(count,)))


__all__ = [
    "alias_copy", "as_strided_copy", "detach_copy", "diagonal_copy", "expand_copy", "from_file",
    "narrow_copy", "permute_copy", "select_copy", "split_copy", "split_with_sizes_copy",
    "squeeze_copy", "t_copy", "transpose_copy", "unbind_copy", "unfold_copy", "unsqueeze_copy",
    "view_as_complex_copy", "view_as_real_copy", "view_copy",
]  # fmt: skip
METHODS = ("narrow_copy",)
