"""Switches of how numbers are computed, by PyTorch's names.

GraphFlow computes float32 products in float32, and on the CPU a program gives the same bits in
every run, so what there is to switch are CUDA's kernels (:mod:`graphflow.backends.cuda`) and when
eager code comes to use kernels (:mod:`graphflow.eager_kernels`).
"""

from __future__ import annotations

from graphflow.backends import cuda
from graphflow.runtime.turns import is_compilation_shared

_PRECISIONS = ("highest", "high", "medium")
_state: dict[str, str | bool | int] = {
    "precision": "highest", "warn_only": False, "warn_always": False, "interop": 1,
}  # fmt: skip


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


def compiles_at_once() -> bool:
    """Whether eager code has programs made when they are first wanted, and waits for them, so that
    its bits are those of every run: asked for, or because ranks have to go on with equal bits."""
    return cuda.deterministic or is_compilation_shared()


def is_deterministic_algorithms_warn_only_enabled() -> bool:
    """Whether it was to warn only."""
    return bool(_state["warn_only"])


def set_deterministic_debug_mode(debug_mode: int | str) -> None:
    """0 or "default", 1 or "warn", 2 or "error": :func:`use_deterministic_algorithms` in one."""
    names = ("default", "warn", "error")
    level = names.index(debug_mode) if debug_mode in names else debug_mode
    if level not in range(3) or isinstance(level, bool):
        raise ValueError(f"debug_mode is 0, 1, 2 or one of {', '.join(names)}, not {debug_mode!r}")
    use_deterministic_algorithms(level != 0, warn_only=level == 1)


def get_deterministic_debug_mode() -> int:
    """0: not asked for, 1: warn only, 2: asked for."""
    if not are_deterministic_algorithms_enabled():
        return 0
    return 1 if is_deterministic_algorithms_warn_only_enabled() else 2


def set_flush_denormal(mode: bool) -> bool:
    """False: numbers below the smallest normal one are always computed with."""
    return False


def set_num_interop_threads(threads: int) -> None:
    """Kept for :func:`get_num_interop_threads`: a step is played by one team of threads."""
    if isinstance(threads, bool) or not isinstance(threads, int) or threads < 1:
        raise ValueError(f"set_num_interop_threads takes a whole number from 1, not {threads!r}")
    _state["interop"] = threads


def get_num_interop_threads() -> int:
    """What :func:`set_num_interop_threads` was told last."""
    return int(_state["interop"])


def set_warn_always(b: bool) -> None:
    """Kept for :func:`is_warn_always_enabled`: Python's own filters say what is shown twice."""
    _state["warn_always"] = bool(b)


def is_warn_always_enabled() -> bool:
    """What :func:`set_warn_always` was told last."""
    return bool(_state["warn_always"])
