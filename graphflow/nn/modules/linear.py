"""Linear and bilinear maps, and the one that does nothing."""

from __future__ import annotations

import math
from typing import Any

from graphflow.checks import need_int
from graphflow.functions.creation import empty
from graphflow.ir.types import DType
from graphflow.nn import functional as F
from graphflow.nn import init
from graphflow.nn.module import Module
from graphflow.nn.parameter import Parameter
from graphflow.tensor import Tensor

__all__ = ["Bilinear", "Identity", "Linear"]


class Identity(Module):
    """Returns its input."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()

    def forward(self, input: Tensor) -> Tensor:
        """The input."""
        return input


class Linear(Module):
    """``x @ weight.T + bias``; weight [out, in] and bias [out], uniform in ±1/sqrt(in)."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        device: Any = None,
        dtype: DType | None = None,
    ) -> None:
        super().__init__()
        self.in_features = need_int("in_features", in_features, 0)
        self.out_features = need_int("out_features", out_features, 0)
        self.weight = Parameter(empty(out_features, in_features, dtype=dtype))
        self.bias: Parameter | None
        if bias:
            self.bias = Parameter(empty(out_features, dtype=dtype))
        else:
            self.register_parameter("bias", None)
        self.reset_parameters()
        self.to(device)

    def reset_parameters(self) -> None:
        """Draw weight and bias anew."""
        init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
            bound = 1 / math.sqrt(self.in_features) if self.in_features else 0.0
            init.uniform_(self.bias, -bound, bound)

    def forward(self, input: Tensor) -> Tensor:
        """[..., in] to [..., out]."""
        return F.linear(input, self.weight, self.bias)

    def extra_repr(self) -> str:
        """PyTorch's spelling."""
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, "
            f"bias={self.bias is not None}"
        )


class NonDynamicallyQuantizableLinear(Linear):
    """:class:`Linear` under the name that PyTorch prints in ``MultiheadAttention``."""


class Bilinear(Module):
    """``x1 @ weight[k] @ x2 + bias[k]`` for every output k; weight [out, in1, in2]."""

    def __init__(
        self, in1_features: int, in2_features: int, out_features: int, bias: bool = True,
        device: Any = None, dtype: DType | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.in1_features = need_int("in1_features", in1_features, 1)
        self.in2_features = need_int("in2_features", in2_features, 0)
        self.out_features = need_int("out_features", out_features, 0)
        self.weight = Parameter(empty(out_features, in1_features, in2_features, dtype=dtype))
        made = Parameter(empty(out_features, dtype=dtype)) if bias else None
        self.register_parameter("bias", made)
        self.reset_parameters()
        self.to(device)

    def reset_parameters(self) -> None:
        """Uniform in ±1/sqrt(in1)."""
        bound = 1 / math.sqrt(self.in1_features)
        init.uniform_(self.weight, -bound, bound)
        if self.bias is not None:
            init.uniform_(self.bias, -bound, bound)

    def forward(self, input1: Tensor, input2: Tensor) -> Tensor:
        """[..., in1] and [..., in2] to [..., out]."""
        return F.bilinear(input1, input2, self.weight, self.bias)

    def extra_repr(self) -> str:
        """PyTorch's spelling."""
        return (
            f"in1_features={self.in1_features}, in2_features={self.in2_features}, "
            f"out_features={self.out_features}, bias={self.bias is not None}"
        )
