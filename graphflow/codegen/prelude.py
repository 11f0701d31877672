"""What a generated kernel file imports.

The names mean plain Python until Numba compiles the kernel; see
:mod:`graphflow.codegen.plain` for what each one does.  A kernel file::

    from graphflow.codegen.prelude import kernel, pointer_f32, share, vm

    @kernel
    def ew_tanh_3fa2(args, tid, nth):
        a = pointer_f32(args, 0)
        out = pointer_f32(args, 1)
        begin, end = share(args[2], tid, nth)
        for i in range(begin, end):
            out[i] = vm.tanh(a[i])
"""

from __future__ import annotations

from graphflow.codegen import vector_math as vm
from graphflow.codegen.plain import (
    CASTS,
    POINTERS,
    RAW_POINTERS,
    add_fast,
    address_of,
    bf16,
    call_epilogue,
    call_kernel,
    f16,
    kernel,
    mul_fast,
    select,
    share,
)

pointer_bool, pointer_at_bool = POINTERS["bool"], RAW_POINTERS["bool"]
pointer_u8, pointer_at_u8 = POINTERS["u8"], RAW_POINTERS["u8"]
pointer_u16, pointer_at_u16 = POINTERS["u16"], RAW_POINTERS["u16"]
pointer_u32, pointer_at_u32 = POINTERS["u32"], RAW_POINTERS["u32"]
pointer_u64, pointer_at_u64 = POINTERS["u64"], RAW_POINTERS["u64"]
pointer_i8, pointer_at_i8 = POINTERS["i8"], RAW_POINTERS["i8"]
pointer_i16, pointer_at_i16 = POINTERS["i16"], RAW_POINTERS["i16"]
pointer_i32, pointer_at_i32 = POINTERS["i32"], RAW_POINTERS["i32"]
pointer_i64, pointer_at_i64 = POINTERS["i64"], RAW_POINTERS["i64"]
pointer_f16, pointer_at_f16 = POINTERS["f16"], RAW_POINTERS["f16"]
pointer_bf16, pointer_at_bf16 = POINTERS["bf16"], RAW_POINTERS["bf16"]
pointer_f32, pointer_at_f32 = POINTERS["f32"], RAW_POINTERS["f32"]
pointer_f64, pointer_at_f64 = POINTERS["f64"], RAW_POINTERS["f64"]

u8, u16, u32, u64 = CASTS["u8"], CASTS["u16"], CASTS["u32"], CASTS["u64"]
i8, i16, i32, i64 = CASTS["i8"], CASTS["i16"], CASTS["i32"], CASTS["i64"]
f32, f64 = CASTS["f32"], CASTS["f64"]

__all__ = [
    "add_fast", "address_of", "bf16", "call_epilogue", "call_kernel", "f16", "f32", "f64",
    "i8", "i16", "i32", "i64", "kernel", "mul_fast",
    "pointer_at_bf16", "pointer_at_bool", "pointer_at_f16", "pointer_at_f32", "pointer_at_f64",
    "pointer_at_i8", "pointer_at_i16", "pointer_at_i32", "pointer_at_i64", "pointer_at_u8",
    "pointer_at_u16", "pointer_at_u32", "pointer_at_u64", "pointer_bf16", "pointer_bool",
    "pointer_f16", "pointer_f32", "pointer_f64", "pointer_i8", "pointer_i16", "pointer_i32",
    "pointer_i64", "pointer_u8", "pointer_u16", "pointer_u32", "pointer_u64",
    "select", "share", "u8", "u16", "u32", "u64", "vm",
]  # fmt: skip
