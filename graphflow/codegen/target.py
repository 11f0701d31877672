"""The CPU that kernels are compiled for, asked from LLVM alone (no Numba import).

Importing llvmlite takes 25 ms, so what it said about this CPU is remembered where
``memory`` says, which the runtime sets.

``GRAPHFLOW_CPU_FEATURES`` chooses other features than the host's: a list of
names, ``avx2,fma``, means a generic CPU with exactly those; a list of signed
names, ``-avx512f``, edits what was detected; ``TRIPLE:CPU`` or ``TRIPLE:CPU:EDITS``,
as ``aarch64-unknown-linux-gnu:neoverse-n1``, is a machine of which LLVM knows all else.
Kernels for another machine than this one are compiled, to be looked at or stored, but
never linked.  The choice is part of every cache key, so objects of different settings
never mix.
"""

from __future__ import annotations

import re
from functools import cache, cached_property
from typing import TYPE_CHECKING, Protocol

from graphflow import flags
from graphflow.errors import CompileError
from graphflow.records import dataclass

if TYPE_CHECKING:
    import llvmlite.binding as llvm

LINE_BYTES = 64
"""Bytes of a line of a cache."""
_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]*")
_ARM64 = ("aarch64", "arm64")
_IMPLIED = {
    "sse4.2": ("sse4.1",),
    "avx": ("sse4.2",),
    "avx2": ("avx",),
    "fma": ("avx",),
    "f16c": ("avx",),
    "avx512f": ("avx2", "fma", "f16c"),
    "avxvnni": ("avx2",),
}


def _implied(name: str) -> tuple[str, ...]:
    if name.startswith("avx512") and name != "avx512f":
        return ("avx512f",)
    return _IMPLIED.get(name, ())


def _closure(name: str) -> set[str]:
    found, pending = set(), [name]
    while pending:
        current = pending.pop()
        found.add(current)
        pending.extend(_implied(current))
    return found


@dataclass(frozen=True)
class Target:
    """A machine to compile for: triple, CPU name and LLVM feature string."""

    triple: str
    cpu: str
    features: str

    @cached_property
    def enabled(self) -> frozenset[str]:
        """Names of the features that are on, with what they imply, edits in order as LLVM does."""
        on: set[str] = set()
        for edit in filter(None, self.features.split(",")):
            name = edit[1:]
            if edit[0] == "+":
                on |= _closure(name)
            elif name in on:
                on = {other for other in on if name not in _closure(other)}
        return frozenset(on)

    @property
    def is_x86(self) -> bool:
        """True on x86 processors."""
        return self.triple.startswith(("x86", "i386", "i686"))

    @property
    def is_arm64(self) -> bool:
        """True on 64-bit ARM processors, all of which have NEON."""
        return self.triple.startswith(_ARM64)

    @property
    def is_host(self) -> bool:
        """True when this process may run code for it, as far as the triple says."""
        return self.triple == _host()[0]

    @property
    def has_fma(self) -> bool:
        """True when a fused multiply-add is one instruction."""
        if self.is_x86:
            return "fma" in self.enabled
        return self.is_arm64 or self.triple.startswith(("powerpc64", "ppc64"))

    @property
    def has_half_conversion(self) -> bool:
        """True when f16 and f32 convert by an instruction (LLVM would call a function)."""
        return "f16c" in self.enabled if self.is_x86 else self.is_arm64

    @property
    def has_avx512(self) -> bool:
        """True when there are the instructions of :mod:`graphflow.codegen.avx512`."""
        return self.is_x86 and {"avx512f", "avx512vl"} <= self.enabled

    @property
    def has_byte_products(self) -> bool:
        """True when four products of bytes are added up by an instruction: one of two signed on
        x86 (``vpdpbusd``: VNNI, with AVX-512 or without), both on ARM (``sdot``)."""
        wide = {"avx512vnni", "avx512bw"} <= self.enabled
        vnni = self.is_x86 and (wide or {"avxvnni", "avx2"} <= self.enabled)
        return vnni or self.has_signed_byte_products

    @property
    def has_signed_byte_products(self) -> bool:
        """True when there is ``sdot``, which all of Apple's processors for macOS have."""
        return self.is_arm64 and ("dotprod" in self.enabled or "-apple-mac" in self.triple)

    @property
    def vector_bytes(self) -> int:
        """Width of the widest vector registers (16 when nothing wider is known)."""
        if self.is_x86 and "avx512f" in self.enabled:
            return 64
        if self.is_x86 and "avx" in self.enabled:
            return 32
        return 16

    @property
    def identity(self) -> str:
        """Text that equals another target's exactly when their code may be exchanged."""
        return f"{self.triple} {self.cpu} {self.features}"


class Memory(Protocol):
    """What keeps the facts of the host between processes."""

    def recall(self) -> list[str] | None:
        """Triple, name and features, if they are known for this very processor."""

    def keep(self, facts: list[str]) -> None:
        """Remember them."""


memory: list[Memory] = []
"""At most one."""


@cache
def _host() -> tuple[str, str, str]:
    """Triple, name and features of this processor."""
    facts = next((known for known in (m.recall() for m in memory) if known), None)
    if facts is None:
        facts = _asked()
        for m in memory:
            m.keep(facts)
    triple, name, features = facts
    return triple, name, features


def _asked() -> list[str]:
    import llvmlite.binding as llvm

    _initialise(False)
    try:
        features: str = llvm.get_host_cpu_features().flatten()
    except RuntimeError:  # LLVM knows no features of this host
        features = ""
    return [llvm.get_process_triple(), llvm.get_host_cpu_name(), features]


@cache
def _initialise(every: bool) -> None:
    """Let LLVM know this kind of processor, or every kind that it was built with."""
    import llvmlite.binding as llvm

    if every:
        llvm.initialize_all_targets()
        llvm.initialize_all_asmprinters()
    else:
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()


@cache
def _target(chosen: str) -> Target:
    if ":" in chosen:
        return _other_machine(chosen)
    triple, cpu, features = _host()
    names = _feature_names(chosen)
    signed = [name for name in names if name[0] in "+-"]
    if signed and len(signed) < len(names):
        raise CompileError(
            f"GRAPHFLOW_CPU_FEATURES={chosen}: either sign every name (edits the host's "
            "features) or none (replaces them)"
        )
    if names and not signed:
        generic = "x86-64" if triple.startswith("x86_64") else "generic"
        return Target(triple, generic, ",".join("+" + name for name in names))
    return Target(triple, cpu, ",".join(filter(None, [features, *signed])))


def _feature_names(text: str) -> list[str]:
    """The names of a list of features, with their signs."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if not _NAME.fullmatch(name.lstrip("+-")):
            raise CompileError(
                f"GRAPHFLOW_CPU_FEATURES: {name!r} is no feature name; "
                "write for example avx2,fma or -avx512f"
            )
    return names


def _other_machine(chosen: str) -> Target:
    """The machine that ``TRIPLE:CPU`` or ``TRIPLE:CPU:EDITS`` names."""
    import llvmlite.binding as llvm

    triple, cpu, *rest = chosen.split(":")
    names = _feature_names(":".join(rest))
    if not triple or not cpu or any(name[0] not in "+-" for name in names):
        raise CompileError(
            f"GRAPHFLOW_CPU_FEATURES={chosen}: write a machine as TRIPLE:CPU or with signed "
            "features as TRIPLE:CPU:+NAME,-NAME, for example aarch64-unknown-linux-gnu:neoverse-n1"
        )
    _initialise(True)
    try:
        llvm.Target.from_triple(triple)
    except RuntimeError as error:
        raise CompileError(f"GRAPHFLOW_CPU_FEATURES={chosen}: {error}") from error
    return Target(triple, cpu, ",".join(names))


def host_target() -> Target:
    """The processor this process runs on."""
    return _target("")


def chosen_target() -> Target:
    """What kernels are compiled for: the host, unless ``GRAPHFLOW_CPU_FEATURES`` says otherwise."""
    return _target(flags.CPU_FEATURES.value or "")


def target_machine(target: Target) -> llvm.TargetMachine:
    """A fresh LLVM target machine.

    Code is position independent in the small model: constants are reached
    relative to the instruction pointer, without a register each.
    """
    import llvmlite.binding as llvm

    _initialise(not target.is_host)
    llvm_target = llvm.Target.from_triple(target.triple)
    machine: llvm.TargetMachine = llvm_target.create_target_machine(
        cpu=target.cpu, features=target.features, opt=3, reloc="pic", codemodel="small"
    )
    return machine
