"""Fill parameters with their first values, in place."""

from __future__ import annotations

import math
from typing import Any

from graphflow.autograd.modes import no_grad
from graphflow.functions.elementwise import where
from graphflow.rng import normal_ as _normal
from graphflow.rng import uniform_ as _uniform
from graphflow.tensor import Tensor


def uniform_(tensor: Tensor, a: float = 0.0, b: float = 1.0) -> Tensor:
    """Uniform values in [a, b)."""
    with no_grad():
        return _uniform(tensor, a, b)


def normal_(tensor: Tensor, mean: float = 0.0, std: float = 1.0) -> Tensor:
    """Normal values."""
    with no_grad():
        return _normal(tensor, mean, std)


def trunc_normal_(
    tensor: Tensor, mean: float = 0.0, std: float = 1.0, a: float = -2.0, b: float = 2.0
) -> Tensor:
    """Normal values within [a, b]: what falls outside is drawn again (at most 100 times)."""
    if not a < b:
        raise ValueError(f"trunc_normal_ needs a < b, got [{a}, {b}]")
    with no_grad():
        _normal(tensor, mean, std)
        for _ in range(100):
            outside = (tensor < a) | (tensor > b)
            if not outside.any():
                return tensor
            tensor.copy_(where(outside, _normal(tensor.clone(), mean, std), tensor))
        tensor.copy_(tensor.clamp(a, b))
        return tensor


def constant_(tensor: Tensor, val: float) -> Tensor:
    """One value everywhere."""
    with no_grad():
        return tensor.fill_(val)  # type: ignore[no-any-return]


def zeros_(tensor: Tensor) -> Tensor:
    """Zeros."""
    return constant_(tensor, 0.0)


def ones_(tensor: Tensor) -> Tensor:
    """Ones."""
    return constant_(tensor, 1.0)


def calculate_gain(nonlinearity: str, param: Any = None) -> float:
    """The recommended gain of a non-linearity (PyTorch's table)."""
    gains = {"tanh": 5.0 / 3, "relu": math.sqrt(2.0), "selu": 3.0 / 4}
    if nonlinearity == "leaky_relu":
        slope = 0.01 if param is None else param
        return math.sqrt(2.0 / (1 + slope**2))
    return gains.get(nonlinearity, 1.0)


def fans(tensor: Tensor) -> tuple[int, int]:
    """(fan_in, fan_out) of a weight of at least two dimensions."""
    shape = tensor.shape
    if len(shape) < 2:
        raise ValueError("fan in and fan out need a tensor of at least 2 dimensions")
    field = 1
    for d in shape[2:]:
        field *= d
    return shape[1] * field, shape[0] * field


def xavier_uniform_(tensor: Tensor, gain: float = 1.0) -> Tensor:
    """Glorot and Bengio (2010): uniform, bound gain * sqrt(6 / (fan_in + fan_out))."""
    bound = gain * math.sqrt(6.0 / _total(fans(tensor)))
    return uniform_(tensor, -bound, bound)


def xavier_normal_(tensor: Tensor, gain: float = 1.0) -> Tensor:
    """Glorot and Bengio (2010): normal, std gain * sqrt(2 / (fan_in + fan_out))."""
    return normal_(tensor, 0.0, gain * math.sqrt(2.0 / _total(fans(tensor))))


def _total(pair: tuple[int, int]) -> int:
    return pair[0] + pair[1]


def kaiming_uniform_(
    tensor: Tensor, a: float = 0, mode: str = "fan_in", nonlinearity: str = "leaky_relu"
) -> Tensor:
    """He et al. (2015): uniform, bound gain * sqrt(3 / fan)."""
    fan = fans(tensor)[0 if mode == "fan_in" else 1]
    bound = calculate_gain(nonlinearity, a) * math.sqrt(3.0 / fan)
    return uniform_(tensor, -bound, bound)


def kaiming_normal_(
    tensor: Tensor, a: float = 0, mode: str = "fan_in", nonlinearity: str = "leaky_relu"
) -> Tensor:
    """He et al. (2015): normal, std gain / sqrt(fan)."""
    fan = fans(tensor)[0 if mode == "fan_in" else 1]
    return normal_(tensor, 0.0, calculate_gain(nonlinearity, a) / math.sqrt(fan))
