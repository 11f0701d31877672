"""Hints for LLVM's loop vectoriser in the text of a module.

LLVM usually makes three copies of a loop: full vectors, half vectors for what
is left, and single elements for what is left of that.  A loop of many vector
functions takes long to compile so.  Such a loop gets the hint to mask its last
vector instead: one copy, compiled in a third of the time.  Shorter loops keep
their copies, which run faster.

A polynomial is a chain of steps that wait for each other, longer than what a
processor looks ahead.  LLVM takes a loop with vector functions one vector at a
time, for fear of too few registers; such a loop gets the hint to take several
side by side, so that their chains overlap.
"""

from __future__ import annotations

import re
from collections import Counter

from graphflow.codegen.target import Target
from graphflow.records import dataclass

HEAVY = 220
"""LLVM instructions in a loop, called functions included, from which it is masked …"""
HUGE = 750
"""… and where that costs something, but would take long to compile otherwise."""
CHAINED = 12
"""Instructions of called functions in a loop from which vectors go side by side …"""
CROWDED = 120
"""… and from which there are too many registers in use for more than two."""

_JUMP = re.compile(r'  br label %"([^"]+)"')
_CALLED = re.compile(r'call [^@]*@"([^"]+)"')
_DEFINED = re.compile(r'define [^@]*@"?([^"(]+)"?\(')
_NARROW = re.compile(r"(?:load|store) i(?:8|16)[ ,]")  # AVX2 masks 4 and 8 bytes only
_PROPERTIES = {
    "masked": '!900000 = !{ !"llvm.loop.vectorize.predicate.enable", i1 true }',
    "two": '!900001 = !{ !"llvm.loop.interleave.count", i32 2 }',
    "four": '!900002 = !{ !"llvm.loop.interleave.count", i32 4 }',
}
_NODES = {"masked": "!900000", "two": "!900001", "four": "!900002"}
_FIRST_LOOP = 900010


def masked_from(target: Target, text: str, aside: bool = False) -> int | None:
    """How many instructions a loop has that is masked; ``None`` if none is.

    A store of part of a vector is cheap where there are masks for all instructions.  AVX2 has
    it for 4 and 8 bytes only, and AMD's processors run a small program for it.  ``aside`` says
    that a kernel's time goes elsewhere than into its loops.
    """
    if {"avx512bw", "avx512vl"} <= target.enabled or "sve" in target.enabled:
        return 0 if aside else HEAVY
    return HUGE if "avx2" in target.enabled and _NARROW.search(text) is None else None


def are_long(target: Target, text: str) -> bool:
    """Whether vectors are several registers long already: LLVM has as many elements in them as
    bytes for NEON, if the text has bytes; a map of floats that says where it holds would be 64
    elements long, side by side, and a third of its instructions would go to the stack."""
    return target.is_arm64 and _NARROW.search(text) is not None


@dataclass(slots=True)
class _Weights:
    """Instructions met so far in a function: all of them, and those of called functions."""

    all: int = 0
    called: int = 0


def hint_loops(text: str, masked: int | None, long: bool = False) -> str:
    """``text`` with hints on backward jumps: loops of at least ``masked`` instructions are
    masked, and innermost loops that call vector functions take vectors side by side, unless
    those are ``long``.

    Before: ``br label %"B24"``; after: ``br label %"B24", !llvm.loop !900010``.  Blocks are
    not in the order they run in, so a jump that enters a loop may look like one that closes
    it; LLVM looks at the latter only.
    """
    lines = text.splitlines()
    sizes = _sizes(lines)
    places: dict[str, tuple[int, int, int]] = {}  # blocks of this function: what is ahead of them
    targets: list[str] = []  # of its backward jumps
    met = _Weights()
    hints: list[str] = []
    for number, line in enumerate(lines):
        if line.startswith("define"):
            places, targets, met = {}, [], _Weights()
        elif line.endswith(":") and not line.startswith(" "):
            places[line[:-1].strip('"')] = met.all, met.called, len(targets)
        elif line.startswith("  "):
            called = _called(line, sizes)
            met.all += 1 + called
            met.called += called
        jump = _JUMP.fullmatch(line)
        if jump is None or jump[1] not in places:
            continue
        weight, called, before = places[jump[1]]
        abreast = not long and set(targets[before:]) <= {jump[1]}  # and innermost
        hint = _hint(met.all - weight, met.called - called, abreast, masked)
        targets.append(jump[1])
        if hint:
            lines[number] += f", !llvm.loop !{_FIRST_LOOP + len(hints)}"
            hints.append(hint)
    for number, hint in enumerate(hints, _FIRST_LOOP):
        lines.append(f"!{number} = distinct !{{ !{number}, {_NODES[hint]} }}")
    return "\n".join([*lines, *(_PROPERTIES[hint] for hint in sorted(set(hints)))])


def _hint(weight: int, called: int, abreast: bool, masked: int | None) -> str:
    if masked is not None and weight >= masked:
        return "masked"
    if not abreast or called < CHAINED:
        return ""
    return "four" if called < CROWDED else "two"


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


def _called(line: str, sizes: Counter[str]) -> int:
    """Instructions of the function that ``line`` calls, if the module has it."""
    found = _CALLED.search(line) if "call" in line else None
    return sizes[found[1]] if found else 0
