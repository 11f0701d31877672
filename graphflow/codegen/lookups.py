"""Lookups in tables that AVX-512 keeps in registers: ``vpermi2ps`` chooses of 32 floats.

The loop vectoriser would make gathers of loads from a table.  So a lookup is a call of a function
that is only declared, with forms for vectors, until loops are vectors; then its bodies
(:data:`BODIES`) are linked and inlined.
"""

from __future__ import annotations

TABLE_SIZE = 32
LOOKUP = "vm.lookup"
"""``float (i32 index, ptr table)``, pure; the low five bits of the index count."""

_LENGTHS = (4, 8, 16)
"""Of vectors of indices: loops are of the longest, and what is left over of shorter ones."""

_FORMS = ", ".join(f"ptr @{LOOKUP}.{n}" for n in _LENGTHS)
_VARIANTS = ",".join(f"_ZGV_LLVM_N{n}vu_{LOOKUP}({LOOKUP}.{n})" for n in _LENGTHS)

DECLARATIONS = (
    f"declare float @{LOOKUP}(i32, ptr) nounwind willreturn memory(none) "
    f'"vector-function-abi-variant"="{_VARIANTS}"',
    *(f"declare <{n} x float> @{LOOKUP}.{n}(<{n} x i32>, ptr)" for n in _LENGTHS),
    # Nothing calls the forms before loops are vectors, and they are to be there then.
    f"@llvm.compiler.used = appending global [{len(_LENGTHS)} x ptr] [{_FORMS}], "
    'section "llvm.metadata"',
)

_PERMUTE = "@llvm.x86.avx512.vpermi2var.ps.512"


def _part(n: int) -> str:
    """The form for ``n`` indices, as part of a longer vector."""
    low = [f"i32 {i}" for i in range(n)]
    longer = ", ".join([*low, *["i32 poison"] * (16 - n)])
    return f"""
define <{n} x float> @{LOOKUP}.{n}(<{n} x i32> %index, ptr %table) alwaysinline nounwind {{
  %wide = shufflevector <{n} x i32> %index, <{n} x i32> poison, <16 x i32> <{longer}>
  %all = call <16 x float> @{LOOKUP}.16(<16 x i32> %wide, ptr %table)
  %value = shufflevector <16 x float> %all, <16 x float> poison, <{n} x i32> <{", ".join(low)}>
  ret <{n} x float> %value
}}
"""


BODIES = f"""
declare <16 x float> {_PERMUTE}(<16 x float>, <16 x i32>, <16 x float>)

define float @{LOOKUP}(i32 %index, ptr %table) alwaysinline nounwind {{
  %low = and i32 %index, {TABLE_SIZE - 1}
  %place = getelementptr inbounds float, ptr %table, i32 %low
  %value = load float, ptr %place, !invariant.load !0
  ret float %value
}}

define <16 x float> @{LOOKUP}.16(<16 x i32> %index, ptr %table) alwaysinline nounwind {{
  %upper = getelementptr inbounds float, ptr %table, i32 16
  %a = load <16 x float>, ptr %table, align 64, !invariant.load !0
  %b = load <16 x float>, ptr %upper, align 64, !invariant.load !0
  %value = call <16 x float> {_PERMUTE}(<16 x float> %a, <16 x i32> %index, <16 x float> %b)
  ret <16 x float> %value
}}
{"".join(map(_part, _LENGTHS[:-1]))}
!0 = !{{}}
"""
