"""Cyclic garbage collection while a program is built.

What a compiler makes lives on, and a collector that looks through it again and again
takes a sixth of the time that a large program takes to build.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


def without_collection(function: Callable[P, R]) -> Callable[P, R]:
    """``function``: no look for cyclic garbage meanwhile, and hardly at what it made afterwards.

    Collection that is off stays off.  No context manager: Ctrl-C can come between what one does
    and its block, and on the way out of the block.
    """

    @wraps(function)
    def uncollected(*args: P.args, **kwargs: P.kwargs) -> R:
        if not gc.isenabled():
            return function(*args, **kwargs)
        frozen_by_user = gc.get_freeze_count()
        try:
            gc.disable()
            return function(*args, **kwargs)
        finally:
            gc.enable()
            if not frozen_by_user:
                _among_the_oldest()

    return uncollected


def _among_the_oldest() -> None:
    """Objects that were made lately count as old ones from now on."""
    try:
        gc.freeze()
    finally:
        gc.unfreeze()
