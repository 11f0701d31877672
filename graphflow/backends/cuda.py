"""Switches of CUDA's matrix products."""

from __future__ import annotations

from types import SimpleNamespace

matmul = SimpleNamespace(allow_tf32=False)


def is_built() -> bool:
    """False: no CUDA code in this version."""
    return False
