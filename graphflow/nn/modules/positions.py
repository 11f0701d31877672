"""Positions, which attention does not see by itself: added waves, and rotated pairs.

Learned positions are an :class:`~graphflow.nn.Embedding` over ``arange(length)``.
"""

from __future__ import annotations

import math

from graphflow.errors import ShapeError
from graphflow.functions.creation import arange
from graphflow.functions.elementwise import add, cos, exp, mul, sin, sub
from graphflow.functions.shaping import cat, flatten, reshape, stack, unsqueeze
from graphflow.ir import types as T
from graphflow.nn.module import Module
from graphflow.nn.modules.dropout import Dropout
from graphflow.promotion import cast, get_default_dtype
from graphflow.tensor import Tensor

__all__ = ["PositionalEncoding", "RotaryPositionalEmbeddings"]


def _angles(length: int, width: int, base: float) -> Tensor:
    """Position times ``base ** (-2 k / width)`` for every pair k: f64 [length, width / 2]."""
    steps = arange(0, width, 2, dtype=T.float64)
    speeds = exp(mul(steps, -math.log(base) / width))
    return mul(unsqueeze(arange(length, dtype=T.float64), 1), speeds)


class PositionalEncoding(Module):
    """Adds sines and cosines of the position, then dropout (Vaswani et al. 2017, 3.5).

    Inputs [positions, N, ``d_model``], with ``batch_first`` [N, positions, ``d_model``].
    Features 2k and 2k + 1 are the sine and cosine of position * 10000^(-2k / d_model).
    """

    pe: Tensor

    def __init__(
        self, d_model: int, dropout: float = 0.1, max_len: int = 5000, batch_first: bool = False
    ) -> None:
        super().__init__()
        self.d_model, self.max_len, self.batch_first = d_model, max_len, batch_first
        self.dropout = Dropout(dropout)
        angles = _angles(max_len, d_model + d_model % 2, 10000.0)
        waves = flatten(stack([sin(angles), cos(angles)], -1), 1)[:, :d_model]
        self.register_buffer("pe", cast(waves, get_default_dtype()), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Same shape."""
        length = x.shape[-2 if self.batch_first else 0]
        _need_length("PositionalEncoding", length, self.max_len)
        waves = self.pe[:length]
        if not self.batch_first:
            waves = reshape(waves, (length, *[1] * (x.ndim - 2), self.d_model))
        return self.dropout(add(x, cast(waves, x.dtype)))  # type: ignore[no-any-return]


class RotaryPositionalEmbeddings(Module):
    """Turns pairs of features by an angle that grows with the position (Su et al. 2021).

    Queries and keys [N, positions, heads, ``dim``]; their products then depend on the
    distance of positions only.  A pair is features 2k and 2k + 1; with
    ``interleaved=False``, as in checkpoints of Hugging Face, k and k + dim / 2.
    """

    cos: Tensor
    sin: Tensor

    def __init__(
        self, dim: int, max_seq_len: int = 4096, base: float = 10000, *, interleaved: bool = True
    ) -> None:
        super().__init__()
        if dim % 2:
            raise ValueError(f"dim must be even, for features turn in pairs, not {dim}")
        self.dim, self.max_seq_len, self.base = dim, max_seq_len, base
        self.interleaved = interleaved
        angles = _angles(max_seq_len, dim, base)
        self.register_buffer("cos", cast(cos(angles), get_default_dtype()), persistent=False)
        self.register_buffer("sin", cast(sin(angles), get_default_dtype()), persistent=False)

    def forward(self, x: Tensor, *, input_pos: Tensor | None = None) -> Tensor:
        """Same shape; ``input_pos`` [positions] or [N, positions] says which positions they are."""
        if x.ndim < 3 or x.shape[-1] != self.dim:
            raise ShapeError(
                f"RotaryPositionalEmbeddings takes [N, positions, heads, {self.dim}], "
                f"not {list(x.shape)}"
            )
        if input_pos is None:
            _need_length("RotaryPositionalEmbeddings", x.shape[-3], self.max_seq_len)
            tables = self.cos[: x.shape[-3]], self.sin[: x.shape[-3]]
        else:
            tables = self.cos[input_pos], self.sin[input_pos]
        c, s = (unsqueeze(cast(t, x.dtype), -2) for t in tables)
        half = self.dim // 2
        first, second = (
            (x[..., 0::2], x[..., 1::2]) if self.interleaved else (x[..., :half], x[..., half:])
        )
        turned = sub(mul(first, c), mul(second, s)), add(mul(second, c), mul(first, s))
        return flatten(stack(turned, -1), -2) if self.interleaved else cat(turned, -1)


def _need_length(name: str, length: int, most: int) -> None:
    if length > most:
        raise ShapeError(f"{name} was made for up to {most} positions, not {length}")
