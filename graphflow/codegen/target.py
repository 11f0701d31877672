"""The CPU that kernels are compiled for, asked from LLVM alone (no Numba import).

``GRAPHFLOW_CPU_FEATURES`` edits the features of the host: a comma-separated
list such as ``-avx512f,-avx2``.  It may take features away (to test narrower
code) and is part of every cache key, so objects of different settings never mix.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from functools import cache, cached_property

import llvmlite.binding as llvm

from graphflow.errors import CompileError

_EDIT = re.compile(r"[+-][a-z0-9_.-]+")


@dataclass(frozen=True)
class Target:
    """A machine to compile for: triple, CPU name and LLVM feature string."""

    triple: str
    cpu: str
    features: str

    @cached_property
    def enabled(self) -> frozenset[str]:
        """Names of the features that are switched on."""
        state: dict[str, bool] = {}
        for edit in self.features.split(","):
            if edit:
                state[edit[1:]] = edit[0] == "+"
        return frozenset(name for name, on in state.items() if on and not self._cut(name, state))

    @staticmethod
    def _cut(name: str, state: dict[str, bool]) -> bool:
        """True when a feature that ``name`` implies was taken away, as LLVM does."""
        if name.startswith("avx512") and not state.get("avx512f", False):
            return True
        if name in ("avx2", "fma", "f16c") or name.startswith("avx512"):
            return not state.get("avx", False) or (
                name.startswith("avx512") and not state.get("avx2", False)
            )
        return False

    @property
    def is_x86(self) -> bool:
        """True on x86 processors."""
        return self.triple.startswith(("x86", "i386", "i686"))

    @property
    def has_fma(self) -> bool:
        """True when a fused multiply-add is one instruction."""
        if self.is_x86:
            return "fma" in self.enabled
        return self.triple.startswith(("aarch64", "arm64", "powerpc64", "ppc64"))

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


@cache
def _initialise() -> None:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()


@cache
def _target(edits: str) -> Target:
    _initialise()
    try:
        features: str = llvm.get_host_cpu_features().flatten()
    except RuntimeError:  # LLVM knows no features of this host
        features = ""
    for edit in filter(None, (e.strip() for e in edits.split(","))):
        if not _EDIT.fullmatch(edit):
            raise CompileError(
                f"GRAPHFLOW_CPU_FEATURES: {edit!r} is not +feature or -feature; "
                "write for example GRAPHFLOW_CPU_FEATURES=-avx512f"
            )
        features = f"{features},{edit}" if features else edit
    return Target(llvm.get_process_triple(), llvm.get_host_cpu_name(), features)


def host_target() -> Target:
    """The processor this process runs on, as edited by ``GRAPHFLOW_CPU_FEATURES``."""
    return _target(os.environ.get("GRAPHFLOW_CPU_FEATURES", ""))


def target_machine(target: Target) -> llvm.TargetMachine:
    """A fresh LLVM target machine.

    Code is position independent in the small model: constants are reached
    relative to the instruction pointer, without a register each.
    """
    _initialise()
    llvm_target = llvm.Target.from_triple(target.triple)
    machine: llvm.TargetMachine = llvm_target.create_target_machine(
        cpu=target.cpu,
        features=target.features,
        opt=3,
        reloc="pic",
        codemodel="small",
    )
    return machine
