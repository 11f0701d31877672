"""Tables of 8-bit integers: each row has a scale and a zero point, and is numbers once read."""

from __future__ import annotations

from typing import Any, ClassVar, Self

from graphflow.autograd.modes import no_grad
from graphflow.functions.creation import arange, zeros
from graphflow.functions.elementwise import clamp, eq, round, where
from graphflow.functions.picking import index_select
from graphflow.functions.shaping import cat, reshape, unsqueeze
from graphflow.ir.types import float32, uint8
from graphflow.nn import functional as F
from graphflow.nn.module import Module
from graphflow.promotion import cast
from graphflow.tensor import Tensor


class _Table(Module):
    """Integers ``weight`` [rows, columns]: the number is ``(integer - zero_point) * scale``."""

    weight: Tensor
    weight_scale: Tensor
    weight_zero_point: Tensor
    _KEPT: ClassVar[tuple[str, ...]] = ("num_embeddings", "embedding_dim", "padding_idx")

    @classmethod
    def from_float(cls, float_module: Any, weight_observer: Any) -> Self:
        """The table of ``float_module``, each row quantised by its range."""
        made, observer = cls(), weight_observer()
        if not observer.qscheme.float_zero or observer.dtype is not uint8:
            raise ValueError(
                f"{cls.__name__}: tables are quantised by float_qparams_weight_only_qconfig"
            )
        for name in cls._KEPT:
            setattr(made, name, getattr(float_module, name))
        with no_grad():
            weight = float_module.weight.detach()
            observer(weight)
            scale, zero = observer.calculate_qparams()
            whole = round(weight * (1.0 / unsqueeze(scale, 1)) + unsqueeze(zero, 1))
            whole = clamp(whole, observer.quant_min, observer.quant_max)
        made.register_buffer("weight", cast(whole, uint8))
        made.register_buffer("weight_scale", scale)
        made.register_buffer("weight_zero_point", zero)
        return made

    def _rows(self, index: Tensor) -> Tensor:
        """The numbers of the rows that ``index`` [n] names: [n, columns]."""
        parts = (self.weight, self.weight_zero_point, self.weight_scale)
        whole, zero, scale = (index_select(part, 0, index) for part in parts)
        made: Tensor = (cast(whole, float32) - unsqueeze(zero, 1)) * unsqueeze(scale, 1)
        return made

    def extra_repr(self) -> str:
        """Sizes."""
        return f"num_embeddings={self.num_embeddings}, embedding_dim={self.embedding_dim}"


class Embedding(_Table):
    """``nn.Embedding`` with a table of uint8."""

    def forward(self, input: Tensor) -> Tensor:
        """Class numbers [...] to vectors [..., embedding_dim]."""
        return reshape(self._rows(reshape(input, (-1,))), (*input.shape, self.embedding_dim))


class EmbeddingBag(_Table):
    """``nn.EmbeddingBag`` with a table of uint8."""

    _KEPT = (*_Table._KEPT, "mode", "include_last_offset")

    def forward(
        self, input: Tensor, offsets: Tensor | None = None,
        per_sample_weights: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """[B, N], or [N] with offsets [B], to [B, embedding_dim]."""
        flat = reshape(input, (-1,))
        count = flat.shape[0]
        place = arange(count)
        if self.padding_idx is not None:  # a row of its own, which is left out
            place = where(eq(flat, self.padding_idx), count, place)
        table = cat([self._rows(flat), zeros(1, self.embedding_dim)])
        return F.embedding_bag(
            reshape(place, input.shape), table, offsets, mode=self.mode, padding_idx=count,
            per_sample_weights=per_sample_weights, include_last_offset=self.include_last_offset,
        )  # fmt: skip
