"""Recurrent cells: one step of an RNN, an LSTM or a GRU."""

from __future__ import annotations

import math
from typing import Any, ClassVar

from graphflow.checks import need_int
from graphflow.errors import ShapeError
from graphflow.functions.creation import empty
from graphflow.ir.types import DType
from graphflow.nn import init
from graphflow.nn.functional.recurrent import GATES, State, Weights, input_product, step
from graphflow.nn.module import Module
from graphflow.nn.parameter import Parameter
from graphflow.tensor import Tensor

__all__ = ["GRUCell", "LSTMCell", "RNNCell", "RNNCellBase"]


class RNNCellBase(Module):
    """Parameters ``weight_ih``, ``weight_hh``, ``bias_ih``, ``bias_hh`` of a cell."""

    kind: ClassVar[str]

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool, device: Any, dtype: DType | None
    ) -> None:
        super().__init__()
        self.input_size = need_int("input_size", input_size, 0)
        self.hidden_size = need_int("hidden_size", hidden_size, 0)
        self.bias = bias
        rows = GATES[self.kind] * hidden_size
        self.weight_ih = Parameter(empty(rows, input_size, dtype=dtype))
        self.weight_hh = Parameter(empty(rows, hidden_size, dtype=dtype))
        for name in ("bias_ih", "bias_hh"):
            made = Parameter(empty(rows, dtype=dtype)) if bias else None
            self.register_parameter(name, made)
        self.reset_parameters()
        self.to(device)

    def reset_parameters(self) -> None:
        """Draw all parameters anew: uniform in ±1/sqrt(hidden_size)."""
        bound = 1 / math.sqrt(self.hidden_size) if self.hidden_size else 0.0
        for parameter in self.parameters():
            init.uniform_(parameter, -bound, bound)

    def _next(self, kind: str, input: Tensor, state: State | None) -> State:
        batched = input.ndim == 2
        self._check(input, state)
        rows = input if batched else input.unsqueeze(0)
        if state is None:
            zero = rows.new_zeros((rows.shape[0], self.hidden_size))
            state = (zero, zero) if kind == "LSTM" else (zero,)
        elif not batched:
            state = tuple(s.unsqueeze(0) for s in state)
        weights = self._weights()
        made = step(kind, input_product(kind, rows, weights), state, weights)
        return made if batched else tuple(s.squeeze(0) for s in made)

    def _weights(self) -> Weights:
        return Weights(self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh, None)

    def _check(self, input: Tensor, state: State | None) -> None:
        name = type(self).__name__
        for what, value in (("input", input), *(("hidden", s) for s in state or ())):
            if value.ndim not in (1, 2):
                raise ValueError(
                    f"{name}: Expected {what} to be 1D or 2D, got {value.ndim}D instead"
                )
        if input.shape[-1] != self.input_size:
            raise ShapeError(
                f"{name}: input has inconsistent input_size: got {input.shape[-1]} expected "
                f"{self.input_size}"
            )
        wanted = (*input.shape[:-1], self.hidden_size)
        for i, value in enumerate(state or ()):
            if tuple(value.shape) != wanted:
                raise ShapeError(
                    f"{name}: hidden{i} of shape {list(value.shape)} does not fit an input of "
                    f"shape {list(input.shape)}; it must be {list(wanted)}"
                )

    def extra_repr(self) -> str:
        """PyTorch's spelling."""
        return f"{self.input_size}, {self.hidden_size}" + ("" if self.bias else ", bias=False")


class RNNCell(RNNCellBase):
    """``h' = tanh(W_ih x + b_ih + W_hh h + b_hh)``, or with ReLU."""

    kind = "RNN_TANH"

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool = True, nonlinearity: str = "tanh",
        device: Any = None, dtype: DType | None = None,
    ) -> None:  # fmt: skip
        super().__init__(input_size, hidden_size, bias, device, dtype)
        self.nonlinearity = nonlinearity

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        """[batch, input_size] and [batch, hidden_size] (zeros if None), or both without batch."""
        if self.nonlinearity not in ("tanh", "relu"):
            raise RuntimeError(f"Unknown nonlinearity: {self.nonlinearity}")
        kind = f"RNN_{self.nonlinearity.upper()}"
        return self._next(kind, input, None if hx is None else (hx,))[0]

    def extra_repr(self) -> str:
        """PyTorch's spelling."""
        end = "" if self.nonlinearity == "tanh" else f", nonlinearity={self.nonlinearity}"
        return super().extra_repr() + end


class GRUCell(RNNCellBase):
    """One step of a GRU."""

    kind = "GRU"

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool = True, device: Any = None,
        dtype: DType | None = None,
    ) -> None:  # fmt: skip
        super().__init__(input_size, hidden_size, bias, device, dtype)

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        """[batch, input_size] and [batch, hidden_size] (zeros if None), or both without batch."""
        return self._next(self.kind, input, None if hx is None else (hx,))[0]


class LSTMCell(RNNCellBase):
    """One step of an LSTM."""

    kind = "LSTM"

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool = True, device: Any = None,
        dtype: DType | None = None,
    ) -> None:  # fmt: skip
        super().__init__(input_size, hidden_size, bias, device, dtype)

    def forward(
        self, input: Tensor, hx: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        """The next (h, c) from [batch, input_size] and a pair [batch, hidden_size]."""
        if hx is not None and (isinstance(hx, Tensor) or len(hx) != 2):
            raise TypeError("LSTMCell: hx must be a pair of tensors, (h, c)")
        h, c = self._next(self.kind, input, hx)
        return h, c
