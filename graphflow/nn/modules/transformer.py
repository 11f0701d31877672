"""The Transformer (Vaswani et al. 2017): encoder and decoder layers, their stacks, the whole."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any, TypeAlias

from graphflow.errors import ShapeError
from graphflow.functions.creation import full
from graphflow.ir.types import DType
from graphflow.nn import functional as F
from graphflow.nn import init
from graphflow.nn.module import Module
from graphflow.nn.modules.attention import MultiheadAttention
from graphflow.nn.modules.containers import ModuleList
from graphflow.nn.modules.dropout import Dropout
from graphflow.nn.modules.linear import Linear
from graphflow.nn.modules.normalization import LayerNorm
from graphflow.tensor import Tensor

__all__ = [
    "Transformer", "TransformerDecoder", "TransformerDecoderLayer", "TransformerEncoder",
    "TransformerEncoderLayer",
]  # fmt: skip

Activation: TypeAlias = str | Callable[[Tensor], Tensor]


def _activation(chosen: Activation) -> Callable[[Tensor], Tensor]:
    if not isinstance(chosen, str):
        return chosen
    known: dict[str, Callable[[Tensor], Tensor]] = {"relu": F.relu, "gelu": F.gelu}
    if chosen not in known:
        raise RuntimeError(f"activation should be relu or gelu, not {chosen}")
    return known[chosen]


_get_activation_fn = _activation


def _get_clones(module: Module, N: int) -> ModuleList:
    """``N`` copies; this and the name before are PyTorch's, which scripts import."""
    return ModuleList(copy.deepcopy(module) for _ in range(N))


class _Layer(Module):
    """What encoder and decoder layers share: the feed-forward block, and where norms stand."""

    def _feed_forward(
        self, width: int, hidden: int, dropout: float, bias: bool, dtype: Any, device: Any
    ) -> None:
        self.linear1 = Linear(width, hidden, bias, device, dtype)
        self.dropout = Dropout(dropout)
        self.linear2 = Linear(hidden, width, bias, device, dtype)

    def _ff_block(self, x: Tensor) -> Tensor:
        made: Tensor = self.linear2(self.dropout(self.activation(self.linear1(x))))
        return made

    def _residual(
        self, x: Tensor, norm: Module, dropout: Module, block: Callable[[Tensor], Tensor]
    ) -> Tensor:
        """``x`` plus the block's result; the norm before the block, or after the sum."""
        if self.norm_first:
            return x + dropout(block(norm(x)))  # type: ignore[no-any-return]
        return norm(x + dropout(block(x)))  # type: ignore[no-any-return]


def _attended(
    attention: Module, other: Tensor | None, mask: Tensor | None, padding: Tensor | None,
    is_causal: bool,
) -> Callable[[Tensor], Tensor]:  # fmt: skip
    """A block that looks at ``other``, or at itself."""

    def block(x: Tensor) -> Tensor:
        source = x if other is None else other
        made: Tensor = attention(
            x, source, source, attn_mask=mask, key_padding_mask=padding, need_weights=False,
            is_causal=is_causal,
        )[0]  # fmt: skip
        return made

    return block


class TransformerEncoderLayer(_Layer):
    """Self-attention and a feed-forward block, each with dropout, residual and layer norm.

    ``norm_first``: norms before the blocks (Xiong et al. 2020), not after the sums.
    """

    def __init__(
        self, d_model: int, nhead: int, dim_feedforward: int = 2048, dropout: float = 0.1,
        activation: Activation = F.relu, layer_norm_eps: float = 1e-5, batch_first: bool = False,
        norm_first: bool = False, bias: bool = True, device: Any = None,
        dtype: DType | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.self_attn = MultiheadAttention(
            d_model, nhead, dropout, bias, batch_first=batch_first, device=device, dtype=dtype
        )
        self._feed_forward(d_model, dim_feedforward, dropout, bias, dtype, device)
        self.norm_first = norm_first
        for name in ("norm1", "norm2"):
            norm = LayerNorm(d_model, layer_norm_eps, bias=bias, device=device, dtype=dtype)
            self.add_module(name, norm)
        self.dropout1, self.dropout2 = Dropout(dropout), Dropout(dropout)
        self.activation = _activation(activation)

    def forward(
        self, src: Tensor, src_mask: Tensor | None = None,
        src_key_padding_mask: Tensor | None = None, is_causal: bool = False,
    ) -> Tensor:  # fmt: skip
        """Same shape; masks as in :class:`MultiheadAttention`."""
        look = _attended(self.self_attn, None, src_mask, src_key_padding_mask, is_causal)
        x = self._residual(src, self.norm1, self.dropout1, look)
        return self._residual(x, self.norm2, self.dropout2, self._ff_block)


class TransformerDecoderLayer(_Layer):
    """Self-attention, attention to the encoder's result, a feed-forward block."""

    def __init__(
        self, d_model: int, nhead: int, dim_feedforward: int = 2048, dropout: float = 0.1,
        activation: Activation = F.relu, layer_norm_eps: float = 1e-5, batch_first: bool = False,
        norm_first: bool = False, bias: bool = True, device: Any = None,
        dtype: DType | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        for name in ("self_attn", "multihead_attn"):
            attention = MultiheadAttention(
                d_model, nhead, dropout, bias, batch_first=batch_first, device=device, dtype=dtype
            )
            self.add_module(name, attention)
        self._feed_forward(d_model, dim_feedforward, dropout, bias, dtype, device)
        self.norm_first = norm_first
        for name in ("norm1", "norm2", "norm3"):
            norm = LayerNorm(d_model, layer_norm_eps, bias=bias, device=device, dtype=dtype)
            self.add_module(name, norm)
        for name in ("dropout1", "dropout2", "dropout3"):
            self.add_module(name, Dropout(dropout))
        self.activation = _activation(activation)

    def forward(
        self, tgt: Tensor, memory: Tensor, tgt_mask: Tensor | None = None,
        memory_mask: Tensor | None = None, tgt_key_padding_mask: Tensor | None = None,
        memory_key_padding_mask: Tensor | None = None, tgt_is_causal: bool = False,
        memory_is_causal: bool = False,
    ) -> Tensor:  # fmt: skip
        """The shape of ``tgt``; ``memory`` is the encoder's result."""
        look = _attended(self.self_attn, None, tgt_mask, tgt_key_padding_mask, tgt_is_causal)
        across = _attended(
            self.multihead_attn, memory, memory_mask, memory_key_padding_mask, memory_is_causal
        )
        x = self._residual(tgt, self.norm1, self.dropout1, look)
        x = self._residual(x, self.norm2, self.dropout2, across)
        return self._residual(x, self.norm3, self.dropout3, self._ff_block)


class _Stack(Module):
    """Copies of a layer, one after the other, and a norm at the end (or None)."""

    def __init__(self, layer: Module, num_layers: int, norm: Module | None) -> None:
        super().__init__()
        self.layers = _get_clones(layer, num_layers)
        self.num_layers = num_layers
        self.norm = norm

    def _through(self, x: Tensor, *args: Any, **masks: Any) -> Tensor:
        for layer in self.layers:
            x = layer(x, *args, **masks)
        return x if self.norm is None else self.norm(x)


class TransformerEncoder(_Stack):
    """A stack of encoder layers, which start as copies of ``encoder_layer``.

    ``enable_nested_tensor`` and ``mask_check`` are PyTorch's and change nothing here.
    """

    def __init__(
        self, encoder_layer: Module, num_layers: int, norm: Module | None = None,
        enable_nested_tensor: bool = True, mask_check: bool = True,
    ) -> None:  # fmt: skip
        super().__init__(encoder_layer, num_layers, norm)
        self.enable_nested_tensor, self.mask_check = enable_nested_tensor, mask_check

    def forward(
        self, src: Tensor, mask: Tensor | None = None,
        src_key_padding_mask: Tensor | None = None, is_causal: bool | None = None,
    ) -> Tensor:  # fmt: skip
        """Same shape.  ``is_causal``: ``mask`` is the causal one, and need not be read."""
        return self._through(
            src, src_mask=mask, src_key_padding_mask=src_key_padding_mask,
            is_causal=bool(is_causal),
        )  # fmt: skip


class TransformerDecoder(_Stack):
    """A stack of decoder layers, which start as copies of ``decoder_layer``."""

    def __init__(self, decoder_layer: Module, num_layers: int, norm: Module | None = None) -> None:
        super().__init__(decoder_layer, num_layers, norm)

    def forward(
        self, tgt: Tensor, memory: Tensor, tgt_mask: Tensor | None = None,
        memory_mask: Tensor | None = None, tgt_key_padding_mask: Tensor | None = None,
        memory_key_padding_mask: Tensor | None = None, tgt_is_causal: bool | None = None,
        memory_is_causal: bool = False,
    ) -> Tensor:  # fmt: skip
        """The shape of ``tgt``; ``memory`` is the encoder's result."""
        return self._through(
            tgt, memory, tgt_mask=tgt_mask, memory_mask=memory_mask,
            tgt_key_padding_mask=tgt_key_padding_mask,
            memory_key_padding_mask=memory_key_padding_mask, tgt_is_causal=bool(tgt_is_causal),
            memory_is_causal=memory_is_causal,
        )  # fmt: skip


class Transformer(Module):
    """Encoder and decoder stacks; [S, N, E] and [T, N, E] to [T, N, E], or ``batch_first``."""

    def __init__(
        self, d_model: int = 512, nhead: int = 8, num_encoder_layers: int = 6,
        num_decoder_layers: int = 6, dim_feedforward: int = 2048, dropout: float = 0.1,
        activation: Activation = F.relu, custom_encoder: Module | None = None,
        custom_decoder: Module | None = None, layer_norm_eps: float = 1e-5,
        batch_first: bool = False, norm_first: bool = False, bias: bool = True,
        device: Any = None, dtype: DType | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        options = (
            d_model, nhead, dim_feedforward, dropout, activation, layer_norm_eps, batch_first,
            norm_first, bias, device, dtype,
        )  # fmt: skip

        def norm() -> LayerNorm:
            return LayerNorm(d_model, layer_norm_eps, bias=bias, device=device, dtype=dtype)

        if custom_encoder is None:
            layer = TransformerEncoderLayer(*options)
            custom_encoder = TransformerEncoder(layer, num_encoder_layers, norm())
        if custom_decoder is None:
            other = TransformerDecoderLayer(*options)
            custom_decoder = TransformerDecoder(other, num_decoder_layers, norm())
        self.encoder, self.decoder = custom_encoder, custom_decoder
        self._reset_parameters()
        self.d_model, self.nhead, self.batch_first = d_model, nhead, batch_first

    def _reset_parameters(self) -> None:
        """Every matrix uniform by Glorot and Bengio (2010)."""
        for parameter in self.parameters():
            if parameter.ndim > 1:
                init.xavier_uniform_(parameter)

    def forward(
        self, src: Tensor, tgt: Tensor, src_mask: Tensor | None = None,
        tgt_mask: Tensor | None = None, memory_mask: Tensor | None = None,
        src_key_padding_mask: Tensor | None = None, tgt_key_padding_mask: Tensor | None = None,
        memory_key_padding_mask: Tensor | None = None, src_is_causal: bool | None = None,
        tgt_is_causal: bool | None = None, memory_is_causal: bool = False,
    ) -> Tensor:  # fmt: skip
        """The decoder's result over the encoder's; masks as in :class:`MultiheadAttention`."""
        axis = 0 if self.batch_first else 1
        if src.ndim == 3 and src.shape[axis] != tgt.shape[axis]:
            raise ShapeError(
                f"Transformer: src has {src.shape[axis]} samples, tgt {tgt.shape[axis]}"
            )
        if src.shape[-1] != self.d_model or tgt.shape[-1] != self.d_model:
            raise ShapeError(
                f"Transformer: src has {src.shape[-1]} features and tgt {tgt.shape[-1]}; "
                f"both need d_model = {self.d_model}"
            )
        memory = self.encoder(
            src, mask=src_mask, src_key_padding_mask=src_key_padding_mask, is_causal=src_is_causal
        )
        made: Tensor = self.decoder(
            tgt, memory, tgt_mask=tgt_mask, memory_mask=memory_mask,
            tgt_key_padding_mask=tgt_key_padding_mask,
            memory_key_padding_mask=memory_key_padding_mask, tgt_is_causal=tgt_is_causal,
            memory_is_causal=memory_is_causal,
        )  # fmt: skip
        return made

    @staticmethod
    def generate_square_subsequent_mask(
        sz: int, device: Any = None, dtype: DType | None = None
    ) -> Tensor:
        """[sz, sz]: 0 on and below the diagonal, -inf above it."""
        from graphflow.functions.diagonals import triu

        return triu(full((sz, sz), -math.inf, dtype=dtype, device=device), 1)
