"""Matrix products beside NumPy's BLAS: python -m benchmarks.contraction --threads 2

Both sides write to memory they allocate themselves (ours from the output pool)
and take turns in blocks of calls; the figures are medians, and the ratio is
ours to NumPy's time.  Shapes are M N K; ``nt`` means that the right operand is
a transposed view.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

SHAPES = (
    "nt 128 128 784", "tn 128 784 128", "nn 128 784 128", "nn 1024 1024 1024", "nt 1024 1024 1024",
    "tn 1024 1024 1024", "nt 512 384 128", "nn 512 512 512", "nn 500 700 300", "nt 96 200 784",
    "nt 128 10 128", "tn 10 128 128", "nn 128 128 10", "nt 64 128 3136", "nn 32 200 50",
    "nt 1 1000 1000", "nn 1 1000 1000", "nn 1000 1 1000", "tn 784 1 128", "nt 4 1000 1000",
    "nt 8 1000 1000", "nt 16 1000 1000", "nt 10 10 1", "nt 10 1 10",
)  # fmt: skip


def main() -> None:
    """Time every shape and print a line for each."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.contraction", allow_abbrev=False)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--dtype", choices=("float32", "float64"), default="float32")
    parser.add_argument("--seconds", type=float, default=0.3, help="time for each shape and side")
    parser.add_argument("--shape", action="append", help='such as "nt 128 128 784"')
    options = parser.parse_args()
    os.environ["OPENBLAS_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(options.threads)
    print(f"{options.dtype}, {options.threads} threads; µs are medians")
    print(f"{'':22}{'ours µs':>10}{'numpy µs':>10}{'ours GF/s':>11}{'ratio':>8}{'error':>10}")
    for shape in options.shape or SHAPES:
        forms, *extents = shape.split()
        m, n, k = map(int, extents)
        ours, peer, error = prepare(forms, m, n, k, options.dtype, options.threads)
        mine, theirs = taking_turns(ours, peer, options.seconds)
        print(
            f"{shape:22}{mine * 1e6:10.1f}{theirs * 1e6:10.1f}"
            f"{2 * m * n * k / mine / 1e9:11.1f}{mine / theirs:8.2f}{error:10.1e}"
        )


def prepare(
    forms: str, m: int, n: int, k: int, dtype: str, threads: int
) -> tuple[Callable[[], Any], Callable[[], Any], float]:
    """Our product and NumPy's as functions, and the relative error of ours."""
    import numpy as np

    from graphflow.codegen.build_schedule import build_schedule
    from graphflow.ir.build import emit, input_node
    from graphflow.ir.graph import Graph
    from graphflow.ir.types import TensorType, dtype_named
    from graphflow.runtime.launch import LoadedProgram

    rng = np.random.default_rng(0)
    shapes = [(m, k), (k, n)]
    arrays = [rng.standard_normal(s[::-1] if f == "t" else s).astype(dtype)
              for f, s in zip(forms, shapes, strict=True)]  # fmt: skip
    inputs = [input_node(name, TensorType(dtype_named(dtype), array.shape))
              for name, array in zip("ab", arrays, strict=True)]  # fmt: skip
    left, right = (emit("permute", x, axes=(1, 0)) if form == "t" else x
                   for form, x in zip(forms, inputs, strict=True))  # fmt: skip
    graph = Graph(tuple(inputs), (emit("matmul", left, right),))
    program = LoadedProgram(build_schedule(graph, threads), threads=threads)
    addresses = [array.ctypes.data for array in arrays]
    views = [array.T if form == "t" else array for form, array in zip(forms, arrays, strict=True)]
    exact = views[0].astype(np.float64) @ views[1].astype(np.float64)
    (storage,) = program.run(addresses)
    assert storage is not None
    result = np.ctypeslib.as_array(
        (np.ctypeslib.as_ctypes_type(dtype) * (m * n)).from_address(storage.address)
    ).reshape(m, n)
    error = float(np.abs(result - exact).max() / np.abs(exact).max())
    return lambda: program.run(addresses), lambda: views[0] @ views[1], error


def taking_turns(
    ours: Callable[[], Any], peer: Callable[[], Any], seconds: float
) -> tuple[float, float]:
    """Median seconds of a call of each, timed in alternating blocks."""
    times: tuple[list[float], list[float]] = ([], [])
    start = time.perf_counter()
    while time.perf_counter() - start < 2 * seconds:
        for function, samples in zip((ours, peer), times, strict=True):
            function()
            until = time.perf_counter() + seconds / 10
            while True:
                before = time.perf_counter()
                function()
                after = time.perf_counter()
                samples.append(after - before)
                if after > until:
                    break
    return statistics.median(times[0]), statistics.median(times[1])


if __name__ == "__main__":
    main()
