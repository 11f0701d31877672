"""One convolution in PyTorch, forward or a gradient, in the faster of its two formats."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from benchmarks.convolutions import Convolution
from benchmarks.systems import Prepared


def prepared(workload: Convolution) -> list[Prepared]:
    """The call in either format; results channels last."""
    x, w, ct = map(torch.from_numpy, workload.arrays())
    x, ct = x.permute(0, 3, 1, 2), ct.permute(0, 3, 1, 2)
    found = []
    for memory_format in (torch.contiguous_format, torch.channels_last):
        operands = [a.contiguous(memory_format=memory_format) for a in (x, w, ct)]
        found.append(Prepared(_call(workload, *operands), _reader(workload)))
    return found


def _reader(workload: Convolution) -> Callable[[Any], Any]:
    if workload.direction == "weight_gradient":
        return lambda result: result.contiguous().numpy()
    return lambda result: result.permute(0, 2, 3, 1).contiguous().numpy()


def _call(workload: Convolution, x: Any, w: Any, ct: Any) -> Callable[[], Any]:
    options = {"stride": workload.stride, "padding": workload.padding}
    gradient = torch.nn.grad
    return {
        "forward": lambda: torch.nn.functional.conv2d(x, w, **options),
        "input_gradient": lambda: gradient.conv2d_input(x.shape, w, ct, **options),
        "weight_gradient": lambda: gradient.conv2d_weight(x, w.shape, ct, **options),
    }[workload.direction]
