"""``torch.backends.cpu``: how the CPU is used."""

from __future__ import annotations

__all__ = ["eager_kernels", "get_cpu_capability"]

eager_kernels = True
"""Whether eager operations on many elements may run as kernels
(:mod:`graphflow.eager_kernels`); if not, NumPy computes them all."""


def get_cpu_capability() -> str:
    """``"AVX512"``, ``"AVX2"`` or ``"DEFAULT"``: what kernels are generated for."""
    from graphflow.codegen.target import chosen_target

    return {64: "AVX512", 32: "AVX2"}.get(chosen_target().vector_bytes, "DEFAULT")
