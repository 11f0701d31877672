"""Attention of several heads, and the positions that it cannot see by itself."""

from __future__ import annotations

from typing import Any

from graphflow.functions.creation import empty
from graphflow.ir.types import DType
from graphflow.nn import init
from graphflow.nn.module import Module
from graphflow.nn.modules.linear import NonDynamicallyQuantizableLinear
from graphflow.nn.parameter import Parameter
from graphflow.nn.scalars import run_time_scalar
from graphflow.tensor import Tensor

__all__ = ["MultiheadAttention"]


class MultiheadAttention(Module):
    """``num_heads`` attentions side by side (Vaswani et al. 2017), with their projections.

    Inputs [L, N, E], with ``batch_first`` [N, L, E], or [L, E]; keys and values may have
    ``kdim`` and ``vdim`` features.  ``add_bias_kv`` adds a learned position to keys and
    values, ``add_zero_attn`` one of zeros.
    """

    run_time = ("dropout",)

    def __init__(
        self, embed_dim: int, num_heads: int, dropout: float = 0.0, bias: bool = True,
        add_bias_kv: bool = False, add_zero_attn: bool = False, kdim: int | None = None,
        vdim: int | None = None, batch_first: bool = False, device: Any = None,
        dtype: DType | None = None,
    ) -> None:  # fmt: skip
        if embed_dim <= 0 or num_heads <= 0:
            raise ValueError(
                f"embed_dim and num_heads must be greater than 0, not {embed_dim} and {num_heads}"
            )
        if embed_dim % num_heads:
            raise ValueError(f"embed_dim {embed_dim} is not divisible by num_heads {num_heads}")
        super().__init__()
        self.embed_dim, self.num_heads, self.head_dim = embed_dim, num_heads, embed_dim // num_heads
        self.kdim = embed_dim if kdim is None else kdim
        self.vdim = embed_dim if vdim is None else vdim
        self.dropout, self.batch_first, self.add_zero_attn = dropout, batch_first, add_zero_attn
        same = self.kdim == embed_dim == self.vdim
        self._weight("q_proj_weight", None if same else (embed_dim, embed_dim), dtype)
        self._weight("k_proj_weight", None if same else (embed_dim, self.kdim), dtype)
        self._weight("v_proj_weight", None if same else (embed_dim, self.vdim), dtype)
        self._weight("in_proj_weight", (3 * embed_dim, embed_dim) if same else None, dtype)
        self._weight("in_proj_bias", (3 * embed_dim,) if bias else None, dtype)
        self.out_proj = NonDynamicallyQuantizableLinear(embed_dim, embed_dim, bias, dtype=dtype)
        self._weight("bias_k", (1, 1, embed_dim) if add_bias_kv else None, dtype)
        self._weight("bias_v", (1, 1, embed_dim) if add_bias_kv else None, dtype)
        self._reset_parameters()
        self.to(device)

    def _weight(self, name: str, shape: tuple[int, ...] | None, dtype: DType | None) -> None:
        self.register_parameter(
            name, None if shape is None else Parameter(empty(shape, dtype=dtype))
        )

    def _reset_parameters(self) -> None:
        """Projections in uniform by Glorot and Bengio, biases 0, learned positions normal."""
        for name in ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight"):
            weight = getattr(self, name)
            if weight is not None:
                init.xavier_uniform_(weight)
        if self.in_proj_bias is not None:
            init.zeros_(self.in_proj_bias)
        if self.out_proj.bias is not None:
            init.zeros_(self.out_proj.bias)
        for bias in (self.bias_k, self.bias_v):
            if bias is not None:
                init.xavier_normal_(bias)

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, key_padding_mask: Tensor | None = None,
        need_weights: bool = True, attn_mask: Tensor | None = None,
        average_attn_weights: bool = True, is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:  # fmt: skip
        """The attended values, and the weights [N, L, S] (or [N, heads, L, S]) if needed.

        Masks are as in :func:`graphflow.nn.functional.multi_head_attention_forward`.
        """
        # Not every program that imports nn attends.
        from graphflow.nn.functional.multi_head import Masks, MultiHead, Projections, Shown

        packed = self.in_proj_weight
        separate = (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight)
        attention = MultiHead(
            self.num_heads,
            Projections(packed, separate if packed is None else None, self.in_proj_bias),
            None if self.bias_k is None else (self.bias_k, self.bias_v),
            self.add_zero_attn, self.out_proj.weight, self.out_proj.bias, self.batch_first,
        )  # fmt: skip
        masks = Masks(attn_mask, key_padding_mask, is_causal)
        dropped = run_time_scalar(self, "dropout") if self.training else 0.0
        shown = Shown(need_weights, average_attn_weights)
        return attention.apply(query, key, value, masks, dropped, shown)
