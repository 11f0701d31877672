"""Every kernel of the operations' calls and of the benchmarks' models for ARM, without one.

``python -m tests.arm.kernels`` compiles them for a server (Neoverse N1, Linux) and for an Apple
M1 (macOS), and looks at the innermost loops of the models' kernels.  The longest loops with
multiply-adds are printed, all of them written to ``out/arm_kernels.txt``.  Fails where a kernel
does not compile or calls what is elsewhere, where a loop that multiplies matrices keeps vectors
on the stack or spreads elements over them, and where a hot loop spends much on the stack.
"""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import graphflow as gf
import graphflow.nn.functional as F
from benchmarks.systems import graphflow_eager
from benchmarks.workloads import TWELVE, WORKLOADS
from graphflow import flags
from graphflow.codegen.build_schedule import build_schedule
from graphflow.codegen.compile import assembly, compile_kernels
from graphflow.codegen.object_files import undefined_symbols
from graphflow.codegen.schedule import Call, KernelSource, Schedule, plain_steps
from graphflow.errors import CompileError
from graphflow.passes.pipeline import run_pipeline
from graphflow.runtime.executor import executor_kernels
from graphflow.tables import table
from tests.arm import LINUX, MACOS
from tests.cudasim.calls import asked, chosen, schedule_of

TABLE = Path("out/arm_kernels.txt")
HEADERS = ["kernel", "of", "instructions", "multiply-adds", "loads", "broadcasts", "stack"]
MULTIPLY_ADD = re.compile(r"^\s*(?:fml[as]|[su]dot)\b.*v\d")
LOAD = re.compile(r"^\s*(?:ldr|ldur|ldp|ld[1-4])\b.*\[(?!sp)")
BROADCAST = re.compile(r"^\s*(?:ld1r|dup)\b")
STACK = re.compile(r"\b[qvd]\d+\b.*\[sp\b")
SHOWN = 40
MOST_STACK = 0.1
"""Share of a hot loop that may be about vectors on the stack: 36 vectors of an image that
Winograd's form transforms do not fit into 32 registers."""
Found = dict[str, tuple[KernelSource, str]]


@dataclass(frozen=True)
class Loop:
    """What an innermost loop holds: all instructions, and how many are of which kind."""

    instructions: int
    multiply_adds: int
    loads: int
    broadcasts: int
    stack: int

    @property
    def multiplies_matrices(self) -> bool:
        """Whether it does little else."""
        return self.multiply_adds >= 16 and 2 * self.multiply_adds > self.instructions

    @property
    def problem(self) -> str:
        """What is wrong with it as a hot loop, if anything is."""
        if self.multiplies_matrices and (self.stack or self.broadcasts):
            return f"a product that goes to the stack or spreads elements: {self}"
        if self.stack > MOST_STACK * self.instructions:
            return f"vectors on the stack in a hot loop: {self}"
        return ""


def blocks_that_repeat(text: str) -> Iterator[list[str]]:
    """The lines of each block of assembly that ends with a jump to its own beginning."""
    for block in re.split(r"\n(?=\.?LBB\w+:)", text):
        label, *lines = block.splitlines()
        name = re.escape(label.split(":")[0])
        ends = [n for n, line in enumerate(lines) if re.search(rf"\s{name}$", line)]
        if ends:
            yield [line for line in lines[: ends[0] + 1] if line.startswith("\t")]


def loops_of(text: str) -> list[Loop]:
    """The innermost loops of some assembly."""
    kinds = (MULTIPLY_ADD, LOAD, BROADCAST, STACK)
    return [
        Loop(len(lines), *(sum(map(bool, map(kind.search, lines))) for kind in kinds))
        for lines in blocks_that_repeat(text)
    ]


def kernels_of(schedule: Schedule, label: str) -> Found:
    """The kernels of a schedule by name, with a label."""
    return {
        step.kernel.name: (step.kernel, label)
        for step in plain_steps(schedule.steps)
        if isinstance(step, Call)
    }


def attention(length: int = 512, width: int = 64) -> tuple[Callable[..., Any], list[Any]]:
    """Attention in blocks, with its gradients, and arguments for it."""

    def step(q: Any, k: Any, v: Any) -> Any:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True).square().sum()

    return gf.func.grad(step, argnums=(0, 1, 2)), [gf.ones(1, 2, length, width)] * 3


def hot_kernels(names: Sequence[str] = TWELVE) -> Found:
    """The kernels of the benchmarks' steps, of attention, and of the executor."""
    found: Found = {kernel.name: (kernel, "executor") for kernel in executor_kernels()}

    def add(function: Callable[..., Any], arguments: Sequence[Any], label: str) -> None:
        graph = run_pipeline(gf.trace(function, *arguments))[-1].graph
        for name, kernel in kernels_of(build_schedule(graph), label).items():
            found.setdefault(name, kernel)

    for name in names:

        def traced(function: Callable[..., Any], label: str = name) -> Callable[..., None]:
            return lambda *arguments: add(function, arguments, label)

        graphflow_eager.prepare(WORKLOADS[name], 1, traced).call()
    add(*attention(), "attention")
    return found


def problem_of(kernel: KernelSource, machine: str, until: float) -> str | None:
    """Why a kernel has no object of its own for a machine, if so; None if it is too late."""
    if time.time() > until:
        return None
    with flags.override(cpu_features=machine):
        try:
            missing = undefined_symbols(compile_kernels([kernel]).objects[kernel.name])
        except CompileError as error:
            return str(error)
    return f"calls {', '.join(missing)}" if missing else ""


def hot_loops(kernel: KernelSource, machine: str) -> list[Loop]:
    """The innermost loops of a kernel on a machine."""
    with flags.override(cpu_features=machine):
        return loops_of(assembly(kernel))


def rows_of(hot: Found, machine: str, pool: ProcessPoolExecutor) -> tuple[list[Any], list[str]]:
    """Rows of the table, and what is wrong with a hot loop."""
    rows, wrong = [], []
    waiting = [(k, label, pool.submit(hot_loops, k, machine)) for k, label in hot.values()]
    for kernel, label, loops in waiting:
        for loop in loops.result():
            rows.append([kernel.name, label, *astuple(loop)])
            if loop.problem:
                wrong.append(f"{kernel.name} of {label}, {machine}: {loop.problem}")
    return sorted(rows, key=lambda row: (-row[3], -row[2], row[0])), wrong


def found_by(machine: str, names: Sequence[str], most: int) -> tuple[Found, Found]:
    """The hot kernels for a machine, and all of them."""
    with flags.override(cpu_features=machine):
        hot = {} if names else hot_kernels()
        found = dict(hot)
        for case in chosen(names, most):
            for name, kernel in kernels_of(schedule_of(case, cuda=False), case.label).items():
                found.setdefault(name, kernel)
    return hot, found


def main() -> int:
    """Compile; 1 if a kernel fails."""
    options = asked(__doc__, most=2, unit="kernel")
    started = time.time()
    until = started + options.seconds if options.seconds else float("inf")
    wrong, report = [], []
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    with ProcessPoolExecutor(cores) as pool:
        for machine in (LINUX, MACOS):
            hot, found = found_by(machine, options.names, options.most)
            rows, problems = rows_of(hot, machine, pool)
            wrong += problems
            waiting = [(k, of, pool.submit(problem_of, k, machine, until))
                       for k, of in found.values()]  # fmt: skip
            left = 0
            for kernel, label, problem in waiting:
                left += problem.result() is None
                if problem.result():
                    wrong.append(f"{kernel.name} of {label}, {machine}: {problem.result()}")
            report.append(f"{machine}\n{table(HEADERS, rows)}\n")
            late = f", {left} left out for want of time" if left else ""
            print(f"{machine}: {len(found) - left} kernels compiled{late}, {len(hot)} of them hot, "
                  f"with {len(rows)} innermost loops; {time.time() - started:.0f} s")  # fmt: skip
            if machine == LINUX and rows:
                print(table(HEADERS, rows[:SHOWN]))
    TABLE.parent.mkdir(exist_ok=True)
    TABLE.write_text("\n".join(report))
    print("\n".join(wrong) or f"nothing is wrong; all loops are in {TABLE}")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
