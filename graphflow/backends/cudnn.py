"""cuDNN's switches: whether and how it computes convolutions and attention of programs for CUDA.

They count for programs made from now on, if ``gf.backends.cuda.library`` lets libraries compute
at all; ``explain()`` tells what became of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

enabled = True
"""Whether cuDNN may compute convolutions and attention."""
allow_tf32 = True
"""Whether it may round float32 to TF32 in convolutions."""
deterministic = False
"""Whether it has to add up in the same order in every run (``gf.backends.cuda.deterministic`` asks
for that, too)."""
benchmark = False
"""Nothing depends on it: cuDNN chooses by its own estimate, and no choices are timed."""


def is_available() -> bool:
    """Whether cuDNN computes convolutions on the current device, if it may."""
    return not isinstance(_library(), str)


def version() -> int | None:
    """Its version, ``91900`` for 9.19; None where it is not available."""
    return getattr(_library(), "version", None)


@contextmanager
def flags(
    enabled: bool = False, benchmark: bool = False, benchmark_limit: int = 10,
    deterministic: bool = False, allow_tf32: bool = True, fp32_precision: str = "none",
) -> Iterator[None]:  # fmt: skip
    """Other switches within a block; the last one and a benchmark's limit say nothing here."""
    given = {
        "enabled": enabled, "benchmark": benchmark, "deterministic": deterministic,
        "allow_tf32": allow_tf32,
    }  # fmt: skip
    before = {name: globals()[name] for name in given}
    globals().update(given)
    try:
        yield
    finally:
        globals().update(before)


def _library() -> object:
    from graphflow.codegen.cuda.convolution import Convolution
    from graphflow.codegen.cuda.toolchain import state
    from graphflow.runtime.cuda.current import current
    from graphflow.runtime.cuda.library import library

    return library(current(), Convolution) if state().usable else "no device"
