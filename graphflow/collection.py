"""Cyclic garbage collection while a program is built.

What a compiler makes lives on, and a collector that looks through it again and again
takes a sixth of the time that a large program takes to build.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_collection() -> Iterator[None]:
    """Do not look for cyclic garbage meanwhile, and hardly at what was made afterwards.

    Collection that is off stays off.
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        frozen_by_user = gc.get_freeze_count()
        if not frozen_by_user:
            gc.freeze()
        gc.enable()
        if not frozen_by_user:
            gc.unfreeze()  # ... and back among the oldest objects
