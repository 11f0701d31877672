"""The switch of fast algorithms for convolution, as PyTorch's for the library of that name.

There is no NNPACK here: GraphFlow's own kernels use Winograd's transforms in compiled float32
programs, where that is faster (``docs/convolution.md`` has the errors).  Switched off, every
convolution that is traced from then on is a plain sum of products::

    with gf.backends.nnpack.flags(enabled=False):
        y = compiled_model(x)
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from graphflow.mode import mode, structure

_state = {"enabled": True}


def is_available() -> bool:
    """True: the kernels come with GraphFlow."""
    return True


def is_enabled() -> bool:
    """Whether fast algorithms may be used; compiled programs assume the answer."""
    enabled = _state["enabled"]
    if mode.tracer is not None:
        mode.tracer.guard(lambda: _state["enabled"], enabled, "backends.nnpack.is_enabled()")
    return enabled


def set_flags(_enabled: bool) -> tuple[bool]:
    """Switch on or off for all threads; returns what was before."""
    before = _state["enabled"]
    _state["enabled"] = bool(_enabled)
    structure.bump()
    return (before,)


@contextmanager
def flags(enabled: bool = False) -> Iterator[None]:
    """Switch for a block."""
    (before,) = set_flags(enabled)
    try:
        yield
    finally:
        set_flags(before)
