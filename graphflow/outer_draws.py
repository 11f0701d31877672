"""Numbers that a function draws from Python's or NumPy's generators while it is traced."""

from __future__ import annotations

import sys
import threading
import warnings
from typing import Any

import numpy as np

from graphflow import pytree

_HINT = "draw outside and pass the numbers as arguments, or draw with gf.rand and its like"


def _stands() -> dict[str, Any]:
    """Where the generators that a module shares with all callers stand."""
    found: dict[str, Any] = {}
    if threading.current_thread() is not threading.main_thread():
        return found  # eager code's functions are traced beside a script that may draw meanwhile
    python, numpy = sys.modules.get("random"), sys.modules.get("numpy.random")
    if python is not None:
        found["random"] = python.getstate()
    if numpy is not None:
        state, _ = pytree.flatten(numpy.get_state(legacy=False))
        found["numpy.random"] = [x.tobytes() if isinstance(x, np.ndarray) else x for x in state]
    return found


class OuterDraws:
    """The generators before a trace; :meth:`warn` if they have moved since."""

    def __init__(self) -> None:
        self._before = _stands()

    def warn(self, name: str) -> None:
        """Say that what ``name`` drew is the same at every call."""
        after = _stands()
        moved = [m for m, stand in self._before.items() if after[m] != stand]
        if moved:
            warnings.warn(
                f"{name} drew numbers from {' and '.join(moved)} while it was compiled: every call "
                f"uses these same numbers; {_HINT}",
                stacklevel=2,
            )
