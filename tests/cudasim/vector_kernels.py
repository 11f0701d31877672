"""Machine code of kernels that are to read and write vectors and keep arrays in registers.

Needs numba-cuda, but no GPU and no driver; run by ``make test-ptx``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import graphflow as gf
from graphflow.codegen.build_schedule import build_schedule
from graphflow.codegen.cuda.assemble import assemble, resources
from graphflow.codegen.cuda.compile import ptx
from graphflow.codegen.cuda.lower import CUDA
from graphflow.codegen.schedule import Call, KernelSource, plain_steps
from graphflow.nn import functional as F
from graphflow.passes.pipeline import PORTABLE, run_pipeline

TARGET = (9, 0)
MOST_REGISTERS = 80


def kernels_of(function: Callable[..., Any], *arguments: gf.Tensor) -> list[KernelSource]:
    """The kernels of a function."""
    graph = run_pipeline(gf.trace(function, *arguments), PORTABLE)[-1].graph
    steps = plain_steps(build_schedule(graph, backend=CUDA).steps)
    return list(dict.fromkeys(step.kernel for step in steps if isinstance(step, Call)))


def adamw() -> list[KernelSource]:
    weight = gf.nn.Parameter(gf.randn(256, 256))
    optimizer = gf.optim.AdamW([weight], lr=1e-2)

    def step(x: gf.Tensor) -> gf.Tensor:
        weight.grad = x * 2
        optimizer.step()
        return x[0, 0]

    step(gf.randn(256, 256))
    found = kernels_of(step, gf.randn(256, 256))
    return [k for k in found if k.name.startswith("ew_") and "while i <" in k.source]


def maps(function: Callable[..., Any], *shapes: tuple[int, ...]) -> list[KernelSource]:
    return kernels_of(function, *(gf.randn(*shape) for shape in shapes))


def norm(x: gf.Tensor, w: gf.Tensor, b: gf.Tensor) -> gf.Tensor:
    return F.layer_norm(x, (x.shape[-1],), w, b)


def grad_of_softmax(x: gf.Tensor, ct: gf.Tensor) -> gf.Tensor:
    return gf.grad(lambda x: (gf.softmax(x, -1) * ct).sum())(x)


def grad_of_norm(x: gf.Tensor, w: gf.Tensor, ct: gf.Tensor) -> gf.Tensor:
    return gf.grad(lambda x: (norm(x, w, w) * ct).sum())(x)


CASES: dict[str, tuple[Callable[[], list[KernelSource]], int]] = {
    "mish": (lambda: maps(F.mish, (64, 256)), 1),
    "bias": (lambda: maps(lambda x, b: F.gelu(x + b), (64, 256), (256,)), 2),
    "scale of rows": (lambda: maps(lambda x, s: x * s, (64, 256), (64, 1)), 1),
    "adamw": (adamw, 3),
    "softmax": (lambda: maps(lambda x: gf.softmax(x, -1), (64, 4096)), 2),
    "softmax of 8,192": (lambda: maps(lambda x: gf.softmax(x, -1), (64, 8192)), 4),
    "softmax of 16,384": (lambda: maps(lambda x: gf.softmax(x, -1), (64, 16384)), 3),
    "layer norm": (lambda: maps(norm, (64, 1024), (1024,), (1024,)), 6),
    "layer norm and gelu": (
        lambda: maps(lambda *x: F.gelu(norm(*x)), (64, 768), (768,), (768,)),
        6,
    ),
    "gradient of softmax": (lambda: maps(grad_of_softmax, (64, 1024), (64, 1024)), 4),
    "gradient of layer norm": (lambda: maps(grad_of_norm, (64, 1024), (1024,), (64, 1024))[:1], 4),
}
"""Kernels, and how many operands of each are vectors at least."""


@pytest.mark.parametrize("name", CASES)
def test_vectors_and_registers(name: str) -> None:
    make, operands = CASES[name]
    kernels = make()
    assert kernels
    for kernel in kernels:
        text = ptx(kernel, TARGET)
        read = text.count("ld.global.v4") + text.count("ld.global.nc.v4")
        assert read >= operands and "st.global.v4" in text, kernel.source
        need = resources(assemble(text, TARGET))
        assert ".local" not in text and not need.frame, (need, kernel.source)
        assert need.registers <= MOST_REGISTERS, (need, kernel.source)


def test_positions_are_split_in_32_bits() -> None:
    (kernel,) = maps(lambda x, b: x + b, (64, 256), (256,))
    text = ptx(kernel, TARGET)
    counts = [text.count(f"{what}.{kind}64") for what in ("div", "rem") for kind in "su"]
    assert sum(counts) <= 1, "that of the loop's own count"
