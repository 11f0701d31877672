"""Cyclic garbage collection while a program is built."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_collection() -> Iterator[None]:
    """Do not look for cyclic garbage meanwhile.

    What a compiler makes lives on, and is looked through again and again: that takes a
    sixth of the time it takes to build a large program.  Collection that is off stays off.
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
