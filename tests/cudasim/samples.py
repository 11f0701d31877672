"""PyTorch's own samples of functions and their gradients, eagerly on CUDA: needs PyTorch.

``python -m tests.cudasim.samples [names]`` takes one sample of every entry of PyTorch's
database, in the simulator unless there is a GPU.  Operands lie on the device, so a function
that makes a tensor of its own on the CPU fails, and so does a rule of a gradient.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import warnings
from typing import Any

os.environ.setdefault("NUMBA_ENABLE_CUDASIM", "1")

import torch

import graphflow as gf
from tests.conformance import convert, operations, samples
from tests.conformance.outcome import Outcome

MOST_ELEMENTS = 150
"""Of all operands of a sample: threads of the simulator are slow."""
MODES = ("eager", "grad")


def on_device() -> None:
    """Let operands be made on the device, and results be read from it."""
    make, read = convert._tensor, convert.from_graphflow

    def made(value: torch.Tensor) -> gf.Tensor:
        tensor = make(value.detach()).to("cuda")
        return tensor.requires_grad_() if value.requires_grad else tensor

    def found(value: Any) -> Any:
        return read(value.detach().cpu() if isinstance(value, gf.Tensor) else value)

    convert._tensor, convert.from_graphflow = made, found


def call_of(info: Any, mode: str) -> operations.Call | None:
    """One small call, if there is one that can be checked."""
    fitting = []
    for sample in samples.samples(info, mode == "grad"):
        given = convert.tensors_of((sample.input, sample.args, sample.kwargs), torch.Tensor)
        elements = sum(t.numel() for t in given)
        if 1 < elements <= MOST_ELEMENTS:
            fitting.append((elements, sample))
    fitting.sort(key=lambda pair: pair[0])
    if not fitting:
        return None
    call = operations.Call(info, fitting[len(fitting) // 3][1])
    return call if call.checkable(mode) else None


def main() -> int:
    """Run the samples; 1 if one fails."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="entries (all, if none is named)")
    names = parser.parse_args().names
    warnings.simplefilter("ignore")
    on_device()
    started, outcome, calls = time.perf_counter(), Outcome(), 0
    for mode in MODES:
        check = operations.CHECKS[mode]
        for key, info in samples.entries().items():
            if (names and key not in names) or (
                mode == "grad" and not samples.differentiable(info)
            ):
                continue
            call = call_of(info, mode)
            if call is not None:
                calls += 1
                label = f"{mode} {key} {call}"
                outcome.check(label, lambda c=call, f=check: f(c, Outcome()), False)
    print(*outcome.failures, sep="\n")
    print(
        f"{calls - len(outcome.failures)} of {calls} samples agree on CUDA, "
        f"{time.perf_counter() - started:.0f} s"
    )
    return int(bool(outcome.failures))


if __name__ == "__main__":
    sys.exit(main())
