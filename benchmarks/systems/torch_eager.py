"""The workloads as PyTorch code, run eagerly; images in the faster of its two formats."""

from __future__ import annotations

import copy
import functools
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F

from benchmarks.changes import changes_of
from benchmarks.convolutions import Convolution
from benchmarks.images import Images
from benchmarks.systems import Prepared, shared, torch_convolutions
from benchmarks.workloads import Expression, Training, Workload

EXPRESSIONS: dict[str, Callable[..., Any]] = {
    "mish": lambda x: x * torch.tanh(F.softplus(x)) * 0.5 + 1,
    "softmax": lambda x: torch.softmax(x * 0.125, -1),
    "layernorm": lambda x, w, b: F.gelu(F.layer_norm(x, (x.shape[-1],), w, b)),
    "matmul": lambda a, b: a @ b,
}


def prepare(
    workload: Workload, threads: int, mode: Callable[..., Any] = lambda function: function
) -> Prepared:
    """The workload, as ``mode`` makes its model and its update: by default eager."""
    torch.set_num_threads(threads)
    if isinstance(workload, Expression):
        inputs = [torch.from_numpy(a) for a in workload.inputs()]
        function = mode(EXPRESSIONS[workload.kind])
        return Prepared(lambda: function(*inputs), lambda result: result.numpy())
    if isinstance(workload, Convolution):
        return _fastest(torch_convolutions.prepared(workload))
    if isinstance(workload, Images):
        return min(_images(workload, mode), key=lambda made: made[0])[1]
    model, optimizer = shared.program(torch, workload)
    update = mode(optimizer.step) if optimizer is not None else None
    step = shared.timed(torch, workload, mode(model), optimizer, update)
    changes = changes_of(torch, model, optimizer) if isinstance(workload, Training) else ()
    data = [torch.from_numpy(a) for a in workload.data()]
    return Prepared(lambda: step(*data), lambda result: result.detach().numpy(), changes)


def _images(workload: Any, mode: Callable[..., Any]) -> Iterator[tuple[float, Prepared]]:
    """A convolution network in either memory format, with what a call takes."""
    for memory_format in (torch.contiguous_format, torch.channels_last):
        model, optimizer = shared.program(torch, workload)
        first = copy.deepcopy(model.state_dict())
        update = mode(optimizer.step) if optimizer is not None else None
        formatted = mode(model.to(memory_format=memory_format))
        step = shared.timed(torch, workload, formatted, optimizer, update)
        images, classes = (torch.from_numpy(a) for a in workload.data())
        images = images.contiguous(memory_format=memory_format)
        call = functools.partial(step, images, classes)
        seconds = [_seconds(call) for _ in range(5)]
        model.load_state_dict(first)  # as if nothing had happened: losses are compared
        yield min(seconds), Prepared(call, lambda result: result.detach().numpy())


def _fastest(choices: list[Prepared]) -> Prepared:
    return min(choices, key=lambda made: min(_seconds(made.call) for _ in range(5)))


def _seconds(call: Callable[[], Any]) -> float:
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin
