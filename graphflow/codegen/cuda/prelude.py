"""What a generated CUDA kernel file imports.

In the simulator the names mean plain Python (:mod:`graphflow.codegen.plain` and
:mod:`graphflow.codegen.vector_math`); else they are intrinsics that write the same
formulas into the kernel (:mod:`graphflow.codegen.cuda.intrinsics`).  A kernel file::

    from graphflow.codegen.cuda.prelude import ahead, cuda, kernel, vm

    @kernel
    def ew_tanh_3fa2(a, out, ni):
        i = cuda.grid(1)
        while i < ni:
            out[i] = vm.tanh(a[i])
            i = ahead(i, cuda.gridsize(1))
"""

from __future__ import annotations

from typing import Any

import numpy as np

from graphflow.codegen.cuda.toolchain import is_simulated, toolchain

_names: dict[str, Any]
if is_simulated():
    from graphflow.codegen.cuda.plain import NAMES as _names
else:
    from graphflow.codegen.cuda.intrinsics import NAMES as _names

cuda, vm = toolchain().cuda, _names["vm"]
f16, bf16, f32, f64 = (_names[name] for name in ("f16", "bf16", "f32", "f64"))
i8, i16, i32, i64 = (_names[name] for name in ("i8", "i16", "i32", "i64"))
u8, u16, u32, u64 = (_names[name] for name in ("u8", "u16", "u32", "u64"))
select, add_fast, mul_fast = (_names[name] for name in ("select", "add_fast", "mul_fast"))
read, ahead = _names["read"], _names["ahead"]
quotient, remainder = _names["quotient"], _names["remainder"]
load_2, load_4, load_8 = (_names[f"load_{count}"] for count in (2, 4, 8))
store_2, store_4, store_8 = (_names[f"store_{count}"] for count in (2, 4, 8))


def kernel(function: Any) -> Any:
    """Mark the entry of a generated file; compiled when it is first launched."""
    function.__dict__["__graphflow_kernel__"] = True
    return function


__all__ = [
    "add_fast", "ahead", "bf16", "cuda", "f16", "f32", "f64", "i8", "i16", "i32", "i64", "kernel",
    "load_2", "load_4", "load_8", "mul_fast", "np", "quotient", "read", "remainder", "select",
    "store_2", "store_4", "store_8", "u8", "u16", "u32", "u64", "vm",
]  # fmt: skip
