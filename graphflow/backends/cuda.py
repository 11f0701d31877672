"""Switches of CUDA's matrix products, and of its implementations of attention."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

deterministic = False
"""Whether programs made from now on give equal bits in every run: no atomic additions."""
replay = True
"""Whether programs made from now on may replay their steps as CUDA graphs; ``explain()`` tells."""
library = True
"""Whether programs made from now on may let libraries compute what they take; ``explain()``
tells."""
matmul = SimpleNamespace(allow_tf32=False)
"""``allow_tf32``: whether cuBLASLt may round float32 to TF32 in programs made from now on."""


def is_built() -> bool:
    """True: kernels for CUDA are made as they are needed."""
    return True


_attention = {"flash": True, "mem_efficient": True, "math": True, "cudnn": True}


def flash_sdp_enabled() -> bool:
    """What :func:`enable_flash_sdp` said last; nothing depends on it: cuDNN's is the one fused
    attention there is."""
    return _attention["flash"]


def enable_flash_sdp(enabled: bool) -> None:
    """Remember ``enabled``."""
    _attention["flash"] = enabled


def mem_efficient_sdp_enabled() -> bool:
    """What :func:`enable_mem_efficient_sdp` said last; nothing depends on it."""
    return _attention["mem_efficient"]


def enable_mem_efficient_sdp(enabled: bool) -> None:
    """Remember ``enabled``."""
    _attention["mem_efficient"] = enabled


def math_sdp_enabled() -> bool:
    """Whether attention on a device may be products and a softmax."""
    return _attention["math"]


def enable_math_sdp(enabled: bool) -> None:
    """Without it, attention on a device that cuDNN does not compute is an error."""
    _attention["math"] = enabled


def cudnn_sdp_enabled() -> bool:
    """Whether programs made from now on may let cuDNN compute attention as a whole."""
    return _attention["cudnn"]


def enable_cudnn_sdp(enabled: bool) -> None:
    """Let cuDNN compute attention in programs made from now on; ``explain()`` tells."""
    _attention["cudnn"] = enabled


@contextmanager
def sdp_kernel(
    enable_flash: bool = True, enable_math: bool = True, enable_mem_efficient: bool = True,
    enable_cudnn: bool = True,
) -> Iterator[None]:  # fmt: skip
    """The implementations of attention that are enabled within a block."""
    before = dict(_attention)
    _attention.update(
        flash=enable_flash, math=enable_math, mem_efficient=enable_mem_efficient,
        cudnn=enable_cudnn,
    )  # fmt: skip
    try:
        yield
    finally:
        _attention.update(before)
