"""Instructions of AVX-512 that formulas ask for and LLVM's loop vectoriser does not know.

``vpermi2ps`` chooses of 32 floats in registers: the vectoriser would make gathers of loads from
a table.  ``vscalefps`` multiplies by a power of two and rounds once: without it that takes two
factors, made of the exponent's halves.  Each is a call of a function that is only declared, with
forms for vectors, until loops are vectors; then its bodies (:data:`BODIES`) are linked and
inlined.
"""

from __future__ import annotations

TABLE_SIZE = 32
LOOKUP = "vm.lookup"
"""``float (i32 index, ptr table)``, pure; the low five bits of the index count."""
SCALED = "vm.scaled"
"""``float (float x, float n)``, pure: ``x * 2^n`` for whole ``n``."""

_LENGTHS = (4, 8, 16)
"""Of vectors of operands: loops are of the longest, and what is left over of shorter ones."""
_FUNCTIONS = {LOOKUP: ("i32", "ptr"), SCALED: ("float", "float")}
"""Types of the operands; results are floats."""


def _wide(kind: str, n: int) -> str:
    """``n`` operands of one type: a table is the same for all."""
    return kind if kind == "ptr" else f"<{n} x {kind}>"


def _variants(name: str) -> str:
    """The forms for vectors, as the vector function ABI spells them."""
    kinds = "".join("u" if kind == "ptr" else "v" for kind in _FUNCTIONS[name])
    return ",".join(f"_ZGV_LLVM_N{n}{kinds}_{name}({name}.{n})" for n in _LENGTHS)


_FORMS = [(name, n) for name in _FUNCTIONS for n in _LENGTHS]
DECLARATIONS = (
    *(
        f"declare float @{name}({', '.join(kinds)}) nounwind willreturn memory(none) "
        f'"vector-function-abi-variant"="{_variants(name)}"'
        for name, kinds in _FUNCTIONS.items()
    ),
    *(
        f"declare <{n} x float> @{name}.{n}({', '.join(_wide(k, n) for k in _FUNCTIONS[name])})"
        for name, n in _FORMS
    ),
    # Nothing calls the forms before loops are vectors, and they are to be there then.
    f"@llvm.compiler.used = appending global [{len(_FORMS)} x ptr] "
    f'[{", ".join(f"ptr @{name}.{n}" for name, n in _FORMS)}], section "llvm.metadata"',
)

_PERMUTE = "@llvm.x86.avx512.vpermi2var.ps.512"
_SCALE = "@llvm.x86.avx512.mask.scalef"
_ROUNDING = 4
"""As the processor is set to: to nearest."""


def _looked_up(n: int) -> str:
    """The form of a lookup for ``n`` indices, as part of a longer vector."""
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


def _scaled(n: int) -> str:
    """The form of a product with powers of two for ``n`` operands: shorter ones have no rounding
    of their own."""
    kind, last = f"<{n} x float>", f"i16 -1, i32 {_ROUNDING}" if n == 16 else "i8 -1"
    types = ", ".join([kind] * 3 + [part.split()[0] for part in last.split(", ")])
    return f"""
declare {kind} {_SCALE}.ps.{32 * n}({types})

define {kind} @{SCALED}.{n}({kind} %x, {kind} %n) alwaysinline nounwind {{
  %value = call {kind} {_SCALE}.ps.{32 * n}(
    {kind} %x, {kind} %n, {kind} zeroinitializer, {last})
  ret {kind} %value
}}
"""


BODIES = f"""
declare <16 x float> {_PERMUTE}(<16 x float>, <16 x i32>, <16 x float>)
declare <4 x float> {_SCALE}.ss(<4 x float>, <4 x float>, <4 x float>, i8, i32)

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

define float @{SCALED}(float %x, float %n) alwaysinline nounwind {{
  %a = insertelement <4 x float> poison, float %x, i32 0
  %b = insertelement <4 x float> poison, float %n, i32 0
  %all = call <4 x float> {_SCALE}.ss(
    <4 x float> %a, <4 x float> %b, <4 x float> zeroinitializer, i8 -1, i32 {_ROUNDING})
  %value = extractelement <4 x float> %all, i32 0
  ret float %value
}}
{"".join(map(_looked_up, _LENGTHS[:-1]))}
{"".join(map(_scaled, _LENGTHS))}
!0 = !{{}}
"""
