"""Activations as modules: the same names, arguments and attributes as PyTorch's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from graphflow.functions.creation import full
from graphflow.ir.types import DType
from graphflow.later import importer
from graphflow.nn import functional as F
from graphflow.nn.module import Module
from graphflow.nn.parameter import Parameter
from graphflow.tensor import Tensor

__all__ = [
    "CELU",
    "ELU",
    "GELU",
    "GLU",
    "SELU",
    "Hardshrink",
    "Hardsigmoid",
    "Hardswish",
    "Hardtanh",
    "LeakyReLU",
    "LogSigmoid",
    "LogSoftmax",
    "Mish",
    "PReLU",
    "RReLU",
    "ReLU",
    "ReLU6",
    "SiLU",
    "Sigmoid",
    "Softmax",
    "Softmax2d",
    "Softmin",
    "Softplus",
    "Softshrink",
    "Softsign",
    "Tanh",
    "Tanhshrink",
    "Threshold",
]  # fmt: skip


class _Plain(Module):
    """An activation without options."""

    function: ClassVar[Callable[..., Tensor]]

    def forward(self, input: Tensor) -> Tensor:
        """Elementwise."""
        return type(self).function(input)


class _InPlace(Module):
    """An activation that can overwrite its input."""

    function: ClassVar[Callable[..., Tensor]]

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.inplace = inplace

    def forward(self, input: Tensor) -> Tensor:
        """Elementwise."""
        return type(self).function(input, inplace=self.inplace)

    def extra_repr(self) -> str:
        """PyTorch's spelling."""
        return "inplace=True" if self.inplace else ""


class Sigmoid(_Plain):
    """1 / (1 + exp(-x))."""

    function = staticmethod(F.sigmoid)


class Tanh(_Plain):
    """Hyperbolic tangent."""

    function = staticmethod(F.tanh)


class LogSigmoid(_Plain):
    """log(sigmoid(x))."""

    function = staticmethod(F.logsigmoid)


class Softsign(_Plain):
    """x / (1 + |x|)."""

    function = staticmethod(F.softsign)


class Tanhshrink(_Plain):
    """x - tanh(x)."""

    function = staticmethod(F.tanhshrink)


class ReLU(_InPlace):
    """max(x, 0)."""

    function = staticmethod(F.relu)


class SELU(_InPlace):
    """The self-normalising unit."""

    function = staticmethod(F.selu)


class SiLU(_InPlace):
    """x * sigmoid(x)."""

    function = staticmethod(F.silu)


class Mish(_InPlace):
    """x * tanh(softplus(x))."""

    function = staticmethod(F.mish)


class Hardsigmoid(_InPlace):
    """x / 6 + 1/2, limited to [0, 1]."""

    function = staticmethod(F.hardsigmoid)

    def extra_repr(self) -> str:
        """PyTorch's spelling: nothing."""
        return ""


class Hardswish(Hardsigmoid):
    """x * hardsigmoid(x)."""

    function = staticmethod(F.hardswish)


class Hardtanh(Module):
    """Limited to [min_val, max_val]."""

    def __init__(self, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> None:
        super().__init__()
        if min_val >= max_val:
            raise ValueError(f"Hardtanh needs min_val < max_val, got {min_val} and {max_val}")
        self.min_val, self.max_val, self.inplace = min_val, max_val, inplace

    def forward(self, input: Tensor) -> Tensor:
        """Elementwise."""
        return F.hardtanh(input, self.min_val, self.max_val, self.inplace)

    def extra_repr(self) -> str:
        """PyTorch's spelling."""
        end = ", inplace=True" if self.inplace else ""
        return f"min_val={self.min_val}, max_val={self.max_val}{end}"


class ReLU6(Hardtanh):
    """min(max(x, 0), 6)."""

    def __init__(self, inplace: bool = False) -> None:
        super().__init__(0.0, 6.0, inplace)

    def extra_repr(self) -> str:
        """PyTorch's spelling."""
        return "inplace=True" if self.inplace else ""


class LeakyReLU(Module):
    """x above 0, ``negative_slope`` * x below."""

    def __init__(self, negative_slope: float = 0.01, inplace: bool = False) -> None:
        super().__init__()
        self.negative_slope, self.inplace = negative_slope, inplace

    def forward(self, input: Tensor) -> Tensor:
        """Elementwise."""
        return F.leaky_relu(input, self.negative_slope, self.inplace)

    def extra_repr(self) -> str:
        """PyTorch's spelling."""
        return f"negative_slope={self.negative_slope}" + (", inplace=True" if self.inplace else "")


class RReLU(Module):
    """Leaky ReLU with a slope drawn from [lower, upper] while training."""

    def __init__(
        self, lower: float = 1.0 / 8, upper: float = 1.0 / 3, inplace: bool = False
    ) -> None:
        super().__init__()
        self.lower, self.upper, self.inplace = lower, upper, inplace

    def forward(self, input: Tensor) -> Tensor:
        """Elementwise."""
        return F.rrelu(input, self.lower, self.upper, self.training, self.inplace)

    def extra_repr(self) -> str:
        """PyTorch's spelling."""
        end = ", inplace=True" if self.inplace else ""
        return f"lower={self.lower}, upper={self.upper}{end}"


class PReLU(Module):
    """x above 0, a trained multiple of x below: one, or one a channel."""

    def __init__(
        self, num_parameters: int = 1, init: float = 0.25, device: Any = None,
        dtype: DType | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.num_parameters, self.init = num_parameters, init
        self.weight = Parameter(full((num_parameters,), float(init), dtype=dtype, device=device))

    def reset_parameters(self) -> None:
        """The slopes at their first value again."""
        self.weight.detach().fill_(self.init)

    def forward(self, input: Tensor) -> Tensor:
        """Elementwise."""
        return F.prelu(input, self.weight)

    def extra_repr(self) -> str:
        """PyTorch's spelling."""
        return f"num_parameters={self.num_parameters}"


class ELU(Module):
    """x above 0, alpha * (exp(x) - 1) below."""

    function: ClassVar[Callable[..., Tensor]] = staticmethod(F.elu)

    def __init__(self, alpha: float = 1.0, inplace: bool = False) -> None:
        super().__init__()
        self.alpha, self.inplace = alpha, inplace

    def forward(self, input: Tensor) -> Tensor:
        """Elementwise."""
        return type(self).function(input, self.alpha, self.inplace)

    def extra_repr(self) -> str:
        """PyTorch's spelling."""
        return f"alpha={self.alpha}" + (", inplace=True" if self.inplace else "")


class CELU(ELU):
    """x above 0, alpha * (exp(x / alpha) - 1) below."""

    function = staticmethod(F.celu)


class GELU(Module):
    """x * Phi(x)."""

    def __init__(self, approximate: str = "none") -> None:
        super().__init__()
        self.approximate = approximate

    def forward(self, input: Tensor) -> Tensor:
        """Elementwise."""
        return F.gelu(input, approximate=self.approximate)

    def extra_repr(self) -> str:
        """PyTorch's spelling."""
        return f"approximate={self.approximate!r}"


class Softplus(Module):
    """log(1 + exp(beta * x)) / beta."""

    def __init__(self, beta: float = 1.0, threshold: float = 20.0) -> None:
        super().__init__()
        self.beta, self.threshold = beta, threshold

    def forward(self, input: Tensor) -> Tensor:
        """Elementwise."""
        return F.softplus(input, self.beta, self.threshold)

    def extra_repr(self) -> str:
        """PyTorch's spelling."""
        return f"beta={self.beta}, threshold={self.threshold}"


class Hardshrink(Module):
    """x outside [-lambd, lambd], else 0."""

    function: ClassVar[Callable[..., Tensor]] = staticmethod(F.hardshrink)

    def __init__(self, lambd: float = 0.5) -> None:
        super().__init__()
        self.lambd = lambd

    def forward(self, input: Tensor) -> Tensor:
        """Elementwise."""
        return type(self).function(input, self.lambd)

    def extra_repr(self) -> str:
        """PyTorch's spelling."""
        return str(self.lambd)


class Softshrink(Hardshrink):
    """x moved towards 0 by ``lambd``, and 0 within it."""

    function = staticmethod(F.softshrink)


class Threshold(Module):
    """x above ``threshold``, else ``value``."""

    def __init__(self, threshold: float, value: float, inplace: bool = False) -> None:
        super().__init__()
        self.threshold, self.value, self.inplace = threshold, value, inplace

    def forward(self, input: Tensor) -> Tensor:
        """Elementwise."""
        return F.threshold(input, self.threshold, self.value, self.inplace)

    def extra_repr(self) -> str:
        """PyTorch's spelling."""
        end = ", inplace=True" if self.inplace else ""
        return f"threshold={self.threshold}, value={self.value}{end}"


class GLU(Module):
    """The first half along ``dim`` times the sigmoid of the second."""

    def __init__(self, dim: int = -1) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, input: Tensor) -> Tensor:
        """Half the extent along ``dim``."""
        return F.glu(input, self.dim)

    def extra_repr(self) -> str:
        """PyTorch's spelling."""
        return f"dim={self.dim}"


class Softmax(Module):
    """exp(x) over its sum along ``dim``."""

    function: ClassVar[Callable[..., Tensor]] = staticmethod(F.softmax)

    def __init__(self, dim: int | None = None) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, input: Tensor) -> Tensor:
        """Same shape."""
        return type(self).function(input, self.dim)

    def extra_repr(self) -> str:
        """PyTorch's spelling."""
        return f"dim={self.dim}"


class LogSoftmax(Softmax):
    """log(softmax(x)) along ``dim``."""

    function = staticmethod(F.log_softmax)


class Softmin(Softmax):
    """softmax(-x) along ``dim``."""

    function = staticmethod(F.softmin)


class Softmax2d(Module):
    """Softmax over the channels of images [N, C, H, W] or [C, H, W]."""

    def forward(self, input: Tensor) -> Tensor:
        """Same shape."""
        if input.ndim not in (3, 4):
            raise ValueError(f"Softmax2d: expected 3 or 4 dimensions, got {list(input.shape)}")
        return F.softmax(input, -3)


__getattr__ = importer(
    globals(), {"MultiheadAttention": "graphflow.nn.modules.attention:MultiheadAttention"}
)
