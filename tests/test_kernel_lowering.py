"""Integers, loops and variables of kernels: compiled without Numba's checks, but to the same."""

from __future__ import annotations

import random
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from kernel_calls import call

from graphflow.codegen import frontend
from graphflow.codegen.compile import compile_kernels
from graphflow.codegen.plain import PlainKernel, load_function, raise_failure
from graphflow.codegen.schedule import KernelSource
from graphflow.errors import CompileError
from graphflow.runtime.linker import link

HEADER = "from graphflow.codegen.prelude import *\nWIDTH = 16\n@kernel\n"
QUOTIENTS = KernelSource(
    "quotients",
    HEADER
    + """def quotients(args, tid, nth):
    a = pointer_i64(args, 0)
    b = pointer_i64(args, 1)
    out = pointer_i64(args, 2)
    for i in range(args[3]):
        out[6 * i] = a[i] // b[i]
        out[6 * i + 1] = a[i] % b[i]
        out[6 * i + 2] = a[i] // WIDTH
        out[6 * i + 3] = a[i] % WIDTH
        out[6 * i + 4] = a[i] // 12
        out[6 * i + 5] = a[i] % 12
""",
)
RANGES = KernelSource(
    "ranges",
    HEADER
    + """def ranges(args, tid, nth):
    out = pointer_i64(args, 0)
    total = 0
    for i in range(args[1], args[2], args[3]):
        for j in range(i):
            if j == 3:
                break
            for k in range(j, args[2]):
                if k == 2:
                    continue
                total = total * 31 + 5 * i + 3 * j + k
    out[0] = total
""",
)
CHANGING = KernelSource(
    "changing",
    HEADER
    + """def changing(args, tid, nth):
    out = pointer_f32(args, 0)
    step = WIDTH
    for n in range(args[1]):
        x = n * step
        out[0] = f32(x)
        for k in range(n):
            x = out + (k + 1)
            x[0] = x[0] + f32(step)
        step = step + n
""",
)
KEEPING = KernelSource(
    "keeping",
    CHANGING.source.replace("changing", "keeping")
    .replace("x = out", "y = out")
    .replace("x[0] = x[0]", "y[0] = y[0]"),
)


def compiled(source: KernelSource, *arguments: np.ndarray | int) -> None:
    """Run the machine code of ``source``."""
    call(link(compile_kernels([source]).objects)[source.name], *arguments)


def plain(source: KernelSource, *arguments: np.ndarray | int) -> None:
    """Run ``source`` as Python."""
    kernel = PlainKernel(load_function(source.name, source.source, Path(f"{source.name}.py")))
    call(kernel.address, *arguments)
    raise_failure()


def test_quotients_are_floors_and_a_zero_divisor_gives_zero() -> None:
    chosen = random.Random(4)
    edges = [0, 1, -1, 2, -2, 15, 16, 17, -16, -17, 2**62, -(2**62)]
    pairs = [(a, b) for a in edges for b in edges]
    pairs += [(chosen.randint(-999, 999), chosen.randint(-9, 9)) for _ in range(200)]
    a, b = np.array(pairs, np.int64).T.copy()
    out = np.zeros((len(pairs), 6), np.int64)
    compiled(QUOTIENTS, a, b, out, len(pairs))
    for (x, y), row in zip(pairs, out.tolist(), strict=True):
        want = list(divmod(x, y) if y else (0, 0)) + [*divmod(x, 16), *divmod(x, 12)]
        assert row == want, (x, y)


@pytest.mark.parametrize("bounds", [(0, 9, 1), (0, 9, 4), (5, 5, 1), (7, 3, 1), (-3, 6, 3)])
def test_ranges_breaks_and_continues(bounds: tuple[int, int, int]) -> None:
    results = []
    for runner in (compiled, plain):
        out = np.zeros(1, np.int64)
        runner(RANGES, out, *bounds)
        results.append(int(out[0]))
    assert results[0] == results[1]


def test_a_range_that_counts_down_is_refused() -> None:
    """It would run once: kernels know no other direction."""
    down = RANGES.source.replace("ranges", "down").replace("range(j, args[2])", "range(j, 0, -1)")
    with pytest.raises(CompileError, match="counts up, not by -1"):
        compile_kernels([KernelSource("down", down)])


@pytest.mark.parametrize("source", [CHANGING, KEEPING])
def test_variables_that_change_their_type_are_renamed(
    source: KernelSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    renamed = []
    passes = frontend._RenamingPipeline._passes
    monkeypatch.setattr(
        frontend._RenamingPipeline, "_passes", lambda self: renamed.append(1) or passes(self)
    )
    results = []
    for runner in (compiled, plain):
        out = np.zeros(20, np.float32)
        runner(source, out, 14)
        results.append(out.copy())
    np.testing.assert_array_equal(results[0], results[1])
    assert bool(renamed) == (source is CHANGING)


def test_threads_compile_to_the_same_bytes_and_leave_nothing_behind() -> None:
    kernels = [
        KernelSource(f"{base.name}_{n}", base.source.replace(base.name, f"{base.name}_{n}"))
        for base in (CHANGING, KEEPING)
        for n in range(3)
    ]
    interval, threads = sys.getswitchinterval(), threading.active_count()
    alone = {k.name: compile_kernels([k]).objects[k.name] for k in kernels}
    with ThreadPoolExecutor(2) as pool:  # two batches at once, too
        first, second = pool.map(compile_kernels, [kernels, kernels[::-1]])
    assert first.objects == alone and second.objects == alone
    assert list(first.objects) == [k.name for k in kernels]
    assert set(first.seconds) == set(alone)
    assert (sys.getswitchinterval(), threading.active_count()) == (interval, threads)
