"""How eager operations run NumPy: without its warnings."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np


class _Quiet(threading.local):
    """A context of each thread's own in which NumPy warns of nothing."""

    def __init__(self) -> None:
        context = contextvars.copy_context()
        context.run(np.seterr, all="ignore")
        self.run = context.run


_quiet = _Quiet()


def quietly(function: Callable[..., Any], values: Sequence[Any], attrs: Mapping[str, Any]) -> Any:
    """``function(*values, **attrs)``; infinities and NaN are values, not warnings.

    ``np.errstate`` costs more than a small operation.  NumPy keeps its settings in a
    context variable, so calling from a context in which they are set does the same.
    """
    try:
        return _quiet.run(function, *values, **attrs)
    except RuntimeError as error:
        if "is already entered" not in str(error):
            raise
        # Inside another quiet call (a region's, or what the garbage collector finalises).
        with np.errstate(all="ignore"):
            return function(*values, **attrs)
