"""Switches of how numbers are computed, by PyTorch's names.

GraphFlow computes float32 products in float32, and on the CPU a program gives the same bits in
every run, so what there is to switch are CUDA's kernels (:mod:`graphflow.backends.cuda`) and when
eager code comes to use kernels (:mod:`graphflow.eager_kernels`).
"""

from __future__ import annotations

from graphflow.backends import cuda

_PRECISIONS = ("highest", "high", "medium")
_state = {"precision": "highest", "warn_only": False}


def set_float32_matmul_precision(precision: str) -> None:
    """``"highest"``, or ``"high"`` or ``"medium"``, which allow CUDA's TF32 in products."""
    if precision not in _PRECISIONS:
        raise ValueError(f"precision should be one of {', '.join(_PRECISIONS)}, got {precision!r}")
    _state["precision"] = precision
    cuda.matmul.allow_tf32 = precision != "highest"


def get_float32_matmul_precision() -> str:
    """What :func:`set_float32_matmul_precision` was told last."""
    return str(_state["precision"])


def use_deterministic_algorithms(mode: bool, *, warn_only: bool = False) -> None:
    """Whether CUDA programs made from now on, and eager code, give the same bits in every run.

    All operations have such kernels, so nothing raises or warns.
    """
    cuda.deterministic = bool(mode)
    _state["warn_only"] = bool(mode and warn_only)


def are_deterministic_algorithms_enabled() -> bool:
    """What :func:`use_deterministic_algorithms` was told last."""
    return cuda.deterministic


def is_deterministic_algorithms_warn_only_enabled() -> bool:
    """Whether it was to warn only."""
    return bool(_state["warn_only"])
