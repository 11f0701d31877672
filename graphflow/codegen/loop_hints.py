"""Hints for LLVM's loop vectoriser in the text of a module.

LLVM usually makes three copies of a loop: full vectors, half vectors for what
is left, and single elements for what is left of that.  A loop of many vector
functions takes seconds to compile so.  Such a loop gets the hint to mask its
last vector instead: one copy, compiled in half the time.  The masks cost
nothing next to that much arithmetic; short loops keep their copies, which run
faster.
"""

from __future__ import annotations

import re
from collections import Counter

from graphflow.codegen.target import Target

HEAVY = 300
"""LLVM instructions in a loop, called functions included, from which it is masked."""

_JUMP = re.compile(r'  br label %"([^"]+)"')
_CALLED = re.compile(r'call [^@]*@"([^"]+)"')
_DEFINED = re.compile(r'define [^@]*@"?([^"(]+)"?\(')
_NARROW = re.compile(r"(?:load|store) i(?:8|16)[ ,]")  # AVX2 masks 4 and 8 bytes only
_PROPERTY = "llvm.loop.vectorize.predicate.enable"


def can_mask(target: Target, text: str) -> bool:
    """Whether the processor can load and store part of a vector of what ``text`` does."""
    if {"avx512bw", "avx512vl"} <= target.enabled or "sve" in target.enabled:
        return True
    return "avx2" in target.enabled and _NARROW.search(text) is None


def mask_heavy_loops(text: str) -> str:
    """``text`` with the hint on every backward jump that closes a heavy loop.

    Before: ``br label %"B24"``; after: ``br label %"B24", !llvm.loop !900000``.
    """
    lines = text.splitlines()
    sizes = _sizes(lines)
    places: dict[str, int] = {}  # blocks of the current function: the weight ahead of them
    weight = loops = 0
    for number, line in enumerate(lines):
        if line.startswith("define"):
            places, weight = {}, 0
        elif line.endswith(":") and not line.startswith(" "):
            places[line[:-1].strip('"')] = weight
        weight += _weight(line, sizes)
        jump = _JUMP.fullmatch(line)
        if jump is not None and weight - places.get(jump[1], weight) >= HEAVY:
            lines[number] += f", !llvm.loop !{900001 + loops}"
            loops += 1
    if loops:
        lines += [f"!{900001 + k} = distinct !{{ !{900001 + k}, !900000 }}" for k in range(loops)]
        lines.append(f'!900000 = !{{ !"{_PROPERTY}", i1 true }}')
    return "\n".join(lines)


def _sizes(lines: list[str]) -> Counter[str]:
    """Instructions of each function the module defines."""
    sizes: Counter[str] = Counter()
    name = ""
    for line in lines:
        if line.startswith("define"):
            found = _DEFINED.match(line)
            name = found[1] if found else ""
        elif line.startswith("  ") and name:
            sizes[name] += 1
    return sizes


def _weight(line: str, sizes: Counter[str]) -> int:
    if not line.startswith("  "):
        return 0
    called = _CALLED.search(line) if "call" in line else None
    return 1 + (sizes[called[1]] if called else 0)
