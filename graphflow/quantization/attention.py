"""Attention whose projections are layers, so that they can be quantised; scores are numbers."""

from __future__ import annotations

from typing import Any, Self

from graphflow.functions.shaping import split
from graphflow.nn import modules
from graphflow.nn.functional.multi_head import Masks, MultiHead, Shown
from graphflow.nn.module import Module
from graphflow.nn.parameter import Parameter
from graphflow.nn.scalars import run_time_scalar
from graphflow.records import NamedTuple
from graphflow.tensor import Tensor


class _Layers(NamedTuple):
    """Projections by layers; keys and values may have features of their own."""

    query: Module
    key: Module
    value: Module
    separate: bool = True

    def apply(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of the whole width."""
        return self.query(query), self.key(key), self.value(value)


class MultiheadAttention(Module):
    """``nn.MultiheadAttention`` with layers ``linear_Q``, ``linear_K``, ``linear_V``, ``out_proj``.

    :func:`prepare` puts it in the place of the other, :func:`convert` makes the layers integers.
    Softmax and the products around it are of numbers, as in PyTorch's quantised attention.
    """

    run_time = ("dropout",)
    _KEPT = ("embed_dim", "num_heads", "head_dim", "kdim", "vdim", "dropout", "batch_first",
             "add_zero_attn", "training")  # fmt: skip

    @classmethod
    def from_float(cls, float_module: Any) -> Self:
        """The module over copies of the parameters of ``float_module``."""
        made = cls()
        for name in cls._KEPT:
            setattr(made, name, getattr(float_module, name))
        own: Any = made
        width = own.embed_dim
        packed = float_module.in_proj_weight
        names = ("q_proj_weight", "k_proj_weight", "v_proj_weight")
        weights = (
            [getattr(float_module, n) for n in names] if packed is None else split(packed, width)
        )
        bias = float_module.in_proj_bias
        biases = (None,) * 3 if bias is None else split(bias, width)
        for name, weight, part in zip("QKV", weights, biases, strict=True):
            made.add_module(f"linear_{name}", _linear(weight, part))
        made.out_proj = _linear(float_module.out_proj.weight, float_module.out_proj.bias)
        for name in ("bias_k", "bias_v"):
            value = getattr(float_module, name)
            made.register_parameter(
                name, None if value is None else Parameter(value.detach().clone())
            )
        return made

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, key_padding_mask: Tensor | None = None,
        need_weights: bool = True, attn_mask: Tensor | None = None,
        average_attn_weights: bool = True, is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:  # fmt: skip
        """The attended values, and the weights if needed: see ``nn.MultiheadAttention``."""
        own: Any = self
        attention = MultiHead(
            own.num_heads, _Layers(own.linear_Q, own.linear_K, own.linear_V),
            None if own.bias_k is None else (own.bias_k, own.bias_v),
            own.add_zero_attn, own.out_proj, None, own.batch_first,
        )  # fmt: skip
        masks = Masks(attn_mask, key_padding_mask, is_causal)
        dropped = run_time_scalar(self, "dropout") if self.training else 0.0
        shown = Shown(need_weights, average_attn_weights)
        return attention.apply(query, key, value, masks, dropped, shown)


def _linear(weight: Tensor, bias: Tensor | None) -> modules.Linear:
    out, into = weight.shape
    made = modules.Linear(int(into), int(out), bias is not None)
    made.weight = Parameter(weight.detach().clone())
    if bias is not None:
        made.bias = Parameter(bias.detach().clone())
    return made
