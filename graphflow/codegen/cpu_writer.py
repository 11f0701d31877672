'''Loop IR to a kernel file for the CPU.

    """out = tanh(a * b)"""
    from graphflow.codegen.prelude import kernel, pointer_f32, share, vm


    @kernel
    def ew_mul_tanh_3fa2c1(args, tid, nth):
        a = pointer_f32(args, 0)
        b = pointer_f32(args, 1)
        out = pointer_f32(args, 2)
        ni = args[3]
        begin, end = share(ni, tid, nth)
        for i in range(begin, end):
            out[i] = vm.tanh(a[i] * b[i])

The text is canonical: nothing in it comes from the user's program, so equal
kernels are equal files.
'''

from __future__ import annotations

from collections.abc import Sequence

from graphflow.codegen.contraction.tiling import tiling
from graphflow.codegen.kernel_writer import KernelWriter, formula_of, mentions, operations_of
from graphflow.codegen.loops import Kernel, Report, Share, Turn
from graphflow.codegen.names import PLACEHOLDER, kernel_name
from graphflow.codegen.schedule import KernelSource
from graphflow.codegen.target import chosen_target
from graphflow.codegen.writer import Writer

SIGNATURES = {False: "args, tid, nth", True: "args, batch, i0, i1, j0, j1"}
_HELPERS = (
    "share", "select", "add_fast", "mul_fast", "f16", "bf16", "f32", "f64",
    "i8", "i16", "i32", "i64", "u8", "u16", "u32", "u64",
)  # fmt: skip


def write_kernel(kernel: Kernel) -> KernelSource:
    """The kernel as a canonical Python module."""
    out = Writer()
    CpuWriter(kernel, out).function()
    function = out.text()
    names = ["kernel", *sorted({f"pointer_{s.dtype.short}" for s in kernel.slots})]
    names += [name for name in _HELPERS if mentions(function, name)]
    if "vm." in function:
        names.append("vm")
    head = f'"""{formula_of(kernel)}"""\n'
    constants = [name for name in ("inf", "nan") if mentions(function, name)]
    if constants:
        head += f"from math import {', '.join(constants)}\n\n"
    if mentions(function, "turn"):
        head += "from graphflow.codegen.contraction.micro_kernels import turn\n"
    text = f"{head}{_import(names)}\n\n\n@kernel\n{function}"
    name = kernel_name(kernel.prefix, operations_of(kernel), text)
    return KernelSource(name, text.replace(PLACEHOLDER, name), kernel.epilogue)


def _import(names: Sequence[str]) -> str:
    line = f"from graphflow.codegen.prelude import {', '.join(names)}"
    if len(line) <= 100:
        return line
    rows = "".join(f"    {name},\n" for name in names)
    return f"from graphflow.codegen.prelude import (\n{rows})"


class CpuWriter(KernelWriter):
    """Kernels of ``(args, tid, nth)`` and epilogues."""

    def function(self) -> None:
        """The whole function."""
        kernel, out = self.kernel, self.out
        with out.block(f"def {PLACEHOLDER}({SIGNATURES[kernel.epilogue]}):"):
            for position, (slot, name) in enumerate(kernel.slots.items()):
                out.line(f"{name} = pointer_{slot.dtype.short}(args, {position})")
            for name, position in kernel.integers:
                out.line(f"{name} = args[{position}]")
            if kernel.body and isinstance(kernel.body[-1], Report):
                out.line("failed = 0")
            self.statements(kernel.body)

    def share(self, statement: Share) -> None:
        """This thread's part of a range."""
        self.out.line(f"begin, end = share({statement.extent}, tid, nth)")

    def turn(self, statement: Turn) -> None:
        """A block that is transposed in registers."""
        goal, source = self.kernel.slots[statement.goal], self.kernel.slots[statement.source]
        lanes = tiling(chosen_target(), statement.goal.dtype.itemsize).lanes
        self.out.line(
            f"turn({lanes}, {statement.width}, {goal} + {statement.place}, "
            f"{source} + ({statement.index}), {statement.row}, {statement.count}, "
            f"{statement.depth})"
        )

    def report(self, statement: Report) -> None:
        """The error code, if there is one."""
        with self.out.block("if failed != 0:"):
            self.out.line(f"{self.kernel.slots[statement.slot]}[0] = failed")
