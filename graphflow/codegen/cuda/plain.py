"""The vocabulary of CUDA kernels in the simulator: plain Python on NumPy numbers."""

from __future__ import annotations

from typing import Any

from graphflow.codegen import vector_math
from graphflow.codegen.plain import CASTS, add_fast, bf16, f16, mul_fast, select

NAMES: dict[str, Any] = {
    **CASTS, "f16": f16, "bf16": bf16, "select": select, "add_fast": add_fast,
    "mul_fast": mul_fast, "vm": vector_math,
}  # fmt: skip
