"""Recurrent layers: RNN, LSTM and GRU over whole sequences."""

from __future__ import annotations

import math
import warnings
from typing import Any

from graphflow.errors import ShapeError
from graphflow.functions.creation import empty
from graphflow.functions.picking import index_select
from graphflow.functions.shaping import cat, stack
from graphflow.ir.types import DType
from graphflow.nn import functional as F
from graphflow.nn import init
from graphflow.nn.functional.recurrent import GATES, State, Weights, layer
from graphflow.nn.module import Module
from graphflow.nn.parameter import Parameter
from graphflow.nn.utils.rnn import PackedSequence
from graphflow.tensor import Tensor

__all__ = ["GRU", "LSTM", "RNN", "RNNBase"]


def _typed(name: str, value: Any, kind: type) -> Any:
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise TypeError(f"{name} should be of type {kind.__name__}, got: {type(value).__name__}")
    return value


class RNNBase(Module):
    """What the recurrent layers share: parameters, their names, and the loop over layers.

    Parameters of layer k: ``weight_ih_l<k>`` [gates * hidden, input], ``weight_hh_l<k>``
    [gates * hidden, hidden], biases of that many rows, ``weight_hr_l<k>`` [proj, hidden];
    those of the direction from last to first end in ``_reverse``.
    """

    def __init__(
        self, mode: str, input_size: int, hidden_size: int, num_layers: int = 1,
        bias: bool = True, batch_first: bool = False, dropout: float = 0.0,
        bidirectional: bool = False, proj_size: int = 0, device: Any = None,
        dtype: DType | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.mode = mode
        self.input_size = _typed("input_size", input_size, int)
        self.hidden_size = _typed("hidden_size", hidden_size, int)
        self.num_layers = _typed("num_layers", num_layers, int)
        self.bias = _typed("bias", bias, bool)
        self.batch_first = _typed("batch_first", batch_first, bool)
        self.dropout = float(self._checked(dropout))
        self.bidirectional, self.proj_size = bidirectional, proj_size
        self._check_sizes()
        for depth in range(num_layers):
            for suffix in self._suffixes(depth):
                self._make_parameters(depth, suffix, dtype)
        self.reset_parameters()
        self.to(device)

    def _checked(self, dropout: Any) -> Any:
        number = isinstance(dropout, (int, float)) and not isinstance(dropout, bool)
        if not number or not 0 <= dropout <= 1:
            raise ValueError(
                "dropout should be a number in range [0, 1], the probability of an element "
                f"being zeroed, not {dropout!r}"
            )
        if dropout > 0 and self.num_layers == 1:
            warnings.warn(
                "dropout comes after every recurrent layer but the last, so it needs num_layers "
                f"greater than 1, but got dropout={dropout} and num_layers=1",
                stacklevel=4,
            )
        return dropout

    def _check_sizes(self) -> None:
        for name in ("input_size", "hidden_size", "num_layers"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be greater than zero")
        if self.proj_size < 0:
            raise ValueError("proj_size should be a positive integer, or zero for no projection")
        if self.proj_size >= self.hidden_size:
            raise ValueError("proj_size has to be smaller than hidden_size")

    def _suffixes(self, depth: int) -> list[str]:
        ends = ["", "_reverse"] if self.bidirectional else [""]
        return [f"_l{depth}{end}" for end in ends]

    def _output(self) -> int:
        return self.proj_size or self.hidden_size

    def _make_parameters(self, depth: int, suffix: str, dtype: DType | None) -> None:
        output, rows = self._output(), GATES[self.mode] * self.hidden_size
        directions = 2 if self.bidirectional else 1
        shapes: dict[str, tuple[int, ...]] = {
            "weight_ih": (rows, output * directions if depth else self.input_size),
            "weight_hh": (rows, output),
        }
        if self.bias:
            shapes |= {"bias_ih": (rows,), "bias_hh": (rows,)}
        if self.proj_size:
            shapes["weight_hr"] = (self.proj_size, self.hidden_size)
        for name, shape in shapes.items():
            self.register_parameter(name + suffix, Parameter(empty(*shape, dtype=dtype)))

    def reset_parameters(self) -> None:
        """Draw all parameters anew: uniform in ±1/sqrt(hidden_size)."""
        bound = 1 / math.sqrt(self.hidden_size)
        for parameter in self.parameters():
            init.uniform_(parameter, -bound, bound)

    def flatten_parameters(self) -> None:
        """Nothing: parameters need no common memory here."""

    def _weights(self, suffix: str) -> Weights:
        found: Any = (getattr(self, name + suffix, None) for name in Weights._fields)
        return Weights(*found)

    @property
    def all_weights(self) -> list[list[Tensor]]:
        """The parameters of each layer and direction."""
        suffixes = [s for depth in range(self.num_layers) for s in self._suffixes(depth)]
        return [[w for w in self._weights(s) if isinstance(w, Tensor)] for s in suffixes]

    # ---- forward ---------------------------------------------------------------------

    def forward(self, input: Any, hx: Any = None) -> tuple[Any, Any]:
        """Every step's output and the last states of all layers.

        ``input`` [time, batch, input_size] ([batch, time, ...] if ``batch_first``), without
        batch [time, input_size], or a PackedSequence; ``hx`` [layers * directions, batch,
        hidden], zeros at first; of an LSTM a pair of those, h and c.
        """
        packed = input if isinstance(input, PackedSequence) else None
        rows = input.data if packed is not None else input
        self._check_input(rows, packed is not None)
        batched = packed is not None or rows.ndim == 3
        swap = self.batch_first and batched and packed is None
        if packed is None:
            rows = rows.transpose(0, 1) if swap else rows if batched else rows.unsqueeze(1)
            if not rows.shape[0]:
                raise ShapeError("expected sequence length to be larger than 0 in RNN")
        sizes = None if packed is None else packed.sizes()
        batch = sizes[0] if sizes is not None else rows.shape[1]
        state = self._first_state(hx, batch, batched, rows)
        if packed is not None and hx is not None and packed.sorted_indices is not None:
            state = tuple(index_select(s, 1, packed.sorted_indices) for s in state)
        outputs, last = self._through_layers(rows, state, sizes)
        if packed is not None:
            order = packed.unsorted_indices
            if order is not None:
                last = tuple(index_select(s, 1, order) for s in last)
            return packed.with_data(outputs), self._returned(last)
        if not batched:
            last = tuple(s.squeeze(1) for s in last)
            outputs = outputs.squeeze(1)
        return (outputs.transpose(0, 1) if swap else outputs), self._returned(last)

    def _through_layers(
        self, rows: Tensor, state: State, sizes: tuple[int, ...] | None
    ) -> tuple[Tensor, State]:
        lasts: list[State] = []
        for depth in range(self.num_layers):
            made = []
            for suffix in self._suffixes(depth):
                first = tuple(s[len(lasts)] for s in state)
                reverse = suffix.endswith("reverse")
                weights = self._weights(suffix)
                hs, last = layer(self.mode, rows, first, weights, reverse, sizes)
                made.append(hs)
                lasts.append(last)
            rows = made[0] if len(made) == 1 else cat(made, -1)
            if self.dropout and depth < self.num_layers - 1:
                rows = F.dropout(rows, self.dropout, self.training)
        return rows, tuple(stack(part) for part in zip(*lasts, strict=True))

    def _returned(self, last: State) -> Any:
        return last[0]

    def _computes_in(self) -> DType:
        own: DType = self.weight_ih_l0.dtype
        return own

    def _check_input(self, input: Tensor, packed: bool) -> None:
        dtype = self._computes_in()
        if packed and input.ndim != 2:
            raise ShapeError(f"input must have 2 dimensions, got {input.ndim}")
        if input.ndim not in (2, 3):
            raise ValueError(
                f"{type(self).__name__}: Expected input to be 2D or 3D, got {input.ndim}D instead"
            )
        if input.dtype is not dtype:
            raise ValueError(
                f"RNN input dtype ({input.dtype}) does not match weight dtype ({dtype}). "
                f"Convert input: input.to({dtype}), or convert model: model.to({input.dtype})"
            )
        if input.shape[-1] != self.input_size:
            raise ShapeError(
                f"input.size(-1) must be equal to input_size. Expected {self.input_size}, "
                f"got {input.shape[-1]}"
            )

    def _first_state(self, hx: Any, batch: Any, batched: bool, rows: Tensor) -> State:
        count = self.num_layers * (2 if self.bidirectional else 1)
        widths = [self._output(), self.hidden_size] if self.mode == "LSTM" else [self.hidden_size]
        if hx is None:
            return tuple(rows.new_zeros((count, batch, width)) for width in widths)
        given: State = tuple(hx) if self.mode == "LSTM" else (hx,)
        if len(given) != len(widths):
            raise ShapeError(f"an LSTM's state is a pair (h, c), not {len(given)} tensors")
        wanted = 3 if batched else 2
        if any(s.ndim != wanted for s in given):
            raise ShapeError(
                f"For {'batched 3-D' if batched else 'unbatched 2-D'} input, the hidden state "
                f"should also be {wanted}-D but got {' and '.join(f'{s.ndim}-D' for s in given)}"
            )
        state = given if batched else tuple(s.unsqueeze(1) for s in given)
        for part, (s, width) in enumerate(zip(state, widths, strict=True)):
            if tuple(s.shape) != (count, batch, width):
                which = f"hidden[{part}]" if len(widths) == 2 else "hidden"
                raise ShapeError(
                    f"Expected {which} size {(count, batch, width)}, got {list(s.shape)}"
                )
        return state

    def extra_repr(self) -> str:
        """PyTorch's spelling."""
        parts = [f"{self.input_size}, {self.hidden_size}"]
        usual = {
            "proj_size": 0, "num_layers": 1, "bias": True, "batch_first": False, "dropout": 0,
            "bidirectional": False,
        }  # fmt: skip
        for name, value in usual.items():
            if getattr(self, name) != value:
                parts.append(f"{name}={getattr(self, name)}")
        return ", ".join(parts)


class RNN(RNNBase):
    """``h' = tanh(W_ih x + b_ih + W_hh h + b_hh)`` in every layer (Elman 1990), or with ReLU."""

    def __init__(
        self, input_size: int, hidden_size: int, num_layers: int = 1, nonlinearity: str = "tanh",
        bias: bool = True, batch_first: bool = False, dropout: float = 0.0,
        bidirectional: bool = False, device: Any = None, dtype: DType | None = None,
    ) -> None:  # fmt: skip
        if nonlinearity not in ("tanh", "relu"):
            raise ValueError(
                f"Unknown nonlinearity {nonlinearity!r}. Select from 'tanh' or 'relu'."
            )
        super().__init__(
            f"RNN_{nonlinearity.upper()}", input_size, hidden_size, num_layers, bias,
            batch_first, dropout, bidirectional, 0, device, dtype,
        )  # fmt: skip
        self.nonlinearity = nonlinearity


class GRU(RNNBase):
    """Gated recurrent units: a reset gate r, an update gate z and a candidate n."""

    def __init__(
        self, input_size: int, hidden_size: int, num_layers: int = 1, bias: bool = True,
        batch_first: bool = False, dropout: float = 0.0, bidirectional: bool = False,
        device: Any = None, dtype: DType | None = None,
    ) -> None:  # fmt: skip
        super().__init__(
            "GRU", input_size, hidden_size, num_layers, bias, batch_first, dropout,
            bidirectional, 0, device, dtype,
        )  # fmt: skip


class LSTM(RNNBase):
    """Long short-term memory: gates i, f, o and a candidate g; ``proj_size`` shortens h."""

    def __init__(
        self, input_size: int, hidden_size: int, num_layers: int = 1, bias: bool = True,
        batch_first: bool = False, dropout: float = 0.0, bidirectional: bool = False,
        proj_size: int = 0, device: Any = None, dtype: DType | None = None,
    ) -> None:  # fmt: skip
        super().__init__(
            "LSTM", input_size, hidden_size, num_layers, bias, batch_first, dropout,
            bidirectional, proj_size, device, dtype,
        )  # fmt: skip

    def _returned(self, last: State) -> Any:
        return last
