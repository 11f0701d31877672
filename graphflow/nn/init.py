"""Fill parameters with their first values, in place."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np

from graphflow.autograd.modes import no_grad
from graphflow.functions.creation import eye, from_numpy, zeros
from graphflow.functions.elementwise import clamp, where
from graphflow.rng import default_generator
from graphflow.rng import normal_ as _normal
from graphflow.rng import uniform_ as _uniform
from graphflow.tensor import Tensor

_LINEAR = (
    "linear", "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d",
    "conv_transpose3d", "sigmoid",
)  # fmt: skip


def uniform_(tensor: Tensor, a: float = 0.0, b: float = 1.0, generator: Any = None) -> Tensor:
    """Uniform values in [a, b)."""
    with no_grad():
        return _uniform(tensor, a, b, generator=generator)


def normal_(tensor: Tensor, mean: float = 0.0, std: float = 1.0, generator: Any = None) -> Tensor:
    """Normal values."""
    with no_grad():
        return _normal(tensor, mean, std, generator=generator)


def trunc_normal_(
    tensor: Tensor, mean: float = 0.0, std: float = 1.0, a: float = -2.0, b: float = 2.0,
    generator: Any = None,
) -> Tensor:  # fmt: skip
    """Normal values within [a, b], by the inverse of the distribution function."""
    if not a < b:
        raise ValueError(f"trunc_normal_ needs a < b, got [{a}, {b}]")
    if mean < a - 2 * std or mean > b + 2 * std:
        warnings.warn(
            "trunc_normal_: the mean is more than 2 std from [a, b]; the distribution of "
            "values may be incorrect",
            stacklevel=2,
        )
    from graphflow.functions.special import erfinv

    low, high = (math.erf((limit - mean) / (std * math.sqrt(2.0))) for limit in (a, b))
    with no_grad():
        _uniform(tensor, low, high, generator=generator)
        spread = erfinv(tensor) * (std * math.sqrt(2.0)) + mean
        tensor.copy_(clamp(spread, min=a, max=b))
    return tensor


def constant_(tensor: Tensor, val: float) -> Tensor:
    """One value everywhere."""
    with no_grad():
        tensor.fill_(val)
    return tensor


def zeros_(tensor: Tensor) -> Tensor:
    """Zeros."""
    return constant_(tensor, 0.0)


def ones_(tensor: Tensor) -> Tensor:
    """Ones."""
    return constant_(tensor, 1.0)


def eye_(tensor: Tensor) -> Tensor:
    """The identity; 2 dimensions."""
    if tensor.ndim != 2:
        raise ValueError("eye_ needs a tensor of 2 dimensions")
    with no_grad():
        tensor.copy_(eye(*tensor.shape, dtype=tensor.dtype))
    return tensor


def dirac_(tensor: Tensor, groups: int = 1) -> Tensor:
    """A convolution's weight that hands its input channels on: 1 at the middle of each."""
    shape = tuple(tensor.shape)
    if len(shape) not in (3, 4, 5):
        raise ValueError("dirac_ needs a tensor of 3, 4 or 5 dimensions")
    if shape[0] % groups:
        raise ValueError(f"dirac_: {groups} groups do not divide {shape[0]} output channels")
    made = np.zeros(shape, tensor.dtype.numpy)
    outputs = shape[0] // groups
    middle = tuple(extent // 2 for extent in shape[2:])
    for group in range(groups):
        for channel in range(min(outputs, shape[1])):
            made[(group * outputs + channel, channel, *middle)] = 1
    with no_grad():
        tensor.copy_(from_numpy(made))
    return tensor


def calculate_gain(nonlinearity: str, param: Any = None) -> float:
    """The recommended gain of a non-linearity (PyTorch's table)."""
    gains = {"tanh": 5.0 / 3, "relu": math.sqrt(2.0), "selu": 3.0 / 4}
    if nonlinearity in _LINEAR:
        return 1.0
    if nonlinearity == "leaky_relu":
        slope = 0.01 if param is None else param
        if isinstance(slope, bool) or not isinstance(slope, (int, float)):
            raise ValueError(f"negative_slope {slope} is not a valid number")
        return math.sqrt(2.0 / (1 + slope**2))
    if nonlinearity not in gains:
        raise ValueError(f"Unsupported nonlinearity {nonlinearity}")
    return gains[nonlinearity]


def fans(tensor: Tensor) -> tuple[int, int]:
    """(fan_in, fan_out) of a weight of at least two dimensions."""
    shape = tensor.shape
    if len(shape) < 2:
        raise ValueError("fan in and fan out need a tensor of at least 2 dimensions")
    field = 1
    for d in shape[2:]:
        field *= d
    return shape[1] * field, shape[0] * field


_calculate_fan_in_and_fan_out = fans  # what layers of one's own call it, with those below
_no_grad_normal_, _no_grad_uniform_, _no_grad_trunc_normal_ = normal_, uniform_, trunc_normal_


def xavier_uniform_(tensor: Tensor, gain: float = 1.0, generator: Any = None) -> Tensor:
    """Glorot and Bengio (2010): uniform, bound gain * sqrt(6 / (fan_in + fan_out))."""
    bound = gain * math.sqrt(6.0 / sum(fans(tensor)))
    return uniform_(tensor, -bound, bound, generator)


def xavier_normal_(tensor: Tensor, gain: float = 1.0, generator: Any = None) -> Tensor:
    """Glorot and Bengio (2010): normal, std gain * sqrt(2 / (fan_in + fan_out))."""
    return normal_(tensor, 0.0, gain * math.sqrt(2.0 / sum(fans(tensor))), generator)


def _calculate_correct_fan(tensor: Tensor, mode: str) -> int:
    if mode not in ("fan_in", "fan_out"):
        raise ValueError(f"mode {mode!r} is not supported: use 'fan_in' or 'fan_out'")
    return fans(tensor)[0 if mode == "fan_in" else 1]


def kaiming_uniform_(
    tensor: Tensor, a: float = 0, mode: str = "fan_in", nonlinearity: str = "leaky_relu",
    generator: Any = None,
) -> Tensor:  # fmt: skip
    """He et al. (2015): uniform, bound gain * sqrt(3 / fan)."""
    if not tensor.numel():
        warnings.warn("initializing zero-element tensors is a no-op", stacklevel=2)
        return tensor
    bound = calculate_gain(nonlinearity, a) * math.sqrt(3.0 / _calculate_correct_fan(tensor, mode))
    return uniform_(tensor, -bound, bound, generator)


def kaiming_normal_(
    tensor: Tensor, a: float = 0, mode: str = "fan_in", nonlinearity: str = "leaky_relu",
    generator: Any = None,
) -> Tensor:  # fmt: skip
    """He et al. (2015): normal, std gain / sqrt(fan)."""
    if not tensor.numel():
        warnings.warn("initializing zero-element tensors is a no-op", stacklevel=2)
        return tensor
    std = calculate_gain(nonlinearity, a) / math.sqrt(_calculate_correct_fan(tensor, mode))
    return normal_(tensor, 0.0, std, generator)


def orthogonal_(tensor: Tensor, gain: float = 1, generator: Any = None) -> Tensor:
    """Orthogonal rows (or columns, of the flattened weight): Saxe et al. (2013)."""
    if tensor.ndim < 2:
        raise ValueError("orthogonal_ needs at least 2 dimensions")
    if not tensor.numel():
        return tensor
    rows, columns = tensor.shape[0], tensor.numel() // tensor.shape[0]
    drawn = (generator or default_generator).draw().normal((rows, columns), tensor.dtype)
    matrix = drawn.numpy().astype(np.float64)
    q, r = np.linalg.qr(matrix.T if rows < columns else matrix)
    q = q * np.where(np.diag(r) < 0, -1.0, 1.0)  # makes the distribution uniform
    made = (q.T if rows < columns else q) * gain
    with no_grad():
        held = from_numpy(np.ascontiguousarray(made.astype(tensor.dtype.numpy)))
        tensor.copy_(held.reshape(tuple(tensor.shape)))
    return tensor


def sparse_(tensor: Tensor, sparsity: float, std: float = 0.01, generator: Any = None) -> Tensor:
    """Normal values, a share ``sparsity`` of every column 0 (Martens 2010); 2 dimensions."""
    if tensor.ndim != 2:
        raise ValueError("sparse_ needs a tensor of 2 dimensions")
    rows, columns = tensor.shape
    empty = math.ceil(sparsity * rows)
    normal_(tensor, 0.0, std, generator)
    unit = (generator or default_generator).draw().uniform((rows, columns), tensor.dtype).numpy()
    rank = np.argsort(np.argsort(unit, 0), 0)  # a random order in every column
    with no_grad():
        kept = from_numpy(rank >= empty)
        tensor.copy_(where(kept, tensor, zeros(rows, columns, dtype=tensor.dtype)))
    return tensor


def __getattr__(name: str) -> Any:
    """The older names without ``_``, which warn."""
    function = globals().get(f"{name}_")
    if function is None or name.startswith("_"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    warnings.warn(
        f"nn.init.{name} is now deprecated in favor of nn.init.{name}_", FutureWarning, stacklevel=2
    )
    return function
