"""One convolution in GraphFlow, forward or a gradient; images lie channels last."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import graphflow as gf
import graphflow.nn.functional as F
from benchmarks.convolutions import Convolution


def _last(x: Any) -> Any:
    return x.permute(0, 2, 3, 1)


def _first(x: Any) -> Any:
    return x.permute(0, 3, 1, 2)


def function_of(workload: Convolution) -> Callable[[Any, Any, Any], Any]:
    """A function of images, filters and cotangent, images channels last in and out."""
    options = {"stride": workload.stride, "padding": workload.padding}

    def forward(x: Any, w: Any, ct: Any) -> Any:
        return _last(F.conv2d(_first(x), w, **options))

    def input_gradient(x: Any, w: Any, ct: Any) -> Any:
        images = _first(x).detach().requires_grad_()
        y = F.conv2d(images, w, **options)
        return _last(gf.autograd.grad(y, images, _first(ct))[0])

    def weight_gradient(x: Any, w: Any, ct: Any) -> Any:
        w = w.detach().requires_grad_()
        y = F.conv2d(_first(x), w, **options)
        return gf.autograd.grad(y, w, _first(ct))[0]

    functions = {f.__name__: f for f in (forward, input_gradient, weight_gradient)}
    return functions[workload.direction]
