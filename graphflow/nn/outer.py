"""Layers and losses that ``gf`` itself has in another form than ``nn.functional``.

``gf.embedding`` takes its weight first, ``gf.batch_norm`` its weight before its statistics,
``gf.dropout`` asks for ``train``, and losses count their reductions: 0 none, 1 mean, 2 sum.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from graphflow.nn import functional as F
from graphflow.nn.functional.dropout import channels_dropped
from graphflow.tensor import Tensor

_REDUCTIONS = ("none", "mean", "sum")
MEAN = 1


def dropout(input: Tensor, p: float, train: bool) -> Tensor:
    """``nn.functional.dropout``."""
    return F.dropout(input, p, train)


def dropout_(input: Tensor, p: float, train: bool) -> Tensor:
    """``nn.functional.dropout`` in place."""
    return F.dropout(input, p, train, inplace=True)


def alpha_dropout(input: Tensor, p: float, train: bool) -> Tensor:
    """``nn.functional.alpha_dropout``."""
    return F.alpha_dropout(input, p, train)


def alpha_dropout_(input: Tensor, p: float, train: bool) -> Tensor:
    """``nn.functional.alpha_dropout`` in place."""
    return F.alpha_dropout(input, p, train, inplace=True)


def feature_alpha_dropout(input: Tensor, p: float, train: bool) -> Tensor:
    """``nn.functional.feature_alpha_dropout``."""
    return F.feature_alpha_dropout(input, p, train)


def feature_alpha_dropout_(input: Tensor, p: float, train: bool) -> Tensor:
    """``nn.functional.feature_alpha_dropout`` in place."""
    return F.feature_alpha_dropout(input, p, train, inplace=True)


def feature_dropout(input: Tensor, p: float, train: bool) -> Tensor:
    """Dropout of whole channels of ``input`` [N, C, …]."""
    return channels_dropped("feature_dropout", input, p, train, False, True)


def feature_dropout_(input: Tensor, p: float, train: bool) -> Tensor:
    """:func:`feature_dropout` in place."""
    return channels_dropped("feature_dropout", input, p, train, True, True)


def batch_norm(
    input: Tensor, weight: Tensor | None, bias: Tensor | None, running_mean: Tensor | None,
    running_var: Tensor | None, training: bool, momentum: float, eps: float,
    cudnn_enabled: bool = True,
) -> Tensor:  # fmt: skip
    """``nn.functional.batch_norm``, weight and bias before the running statistics."""
    return F.batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)


def instance_norm(
    input: Tensor, weight: Tensor | None, bias: Tensor | None, running_mean: Tensor | None,
    running_var: Tensor | None, use_input_stats: bool, momentum: float, eps: float,
    cudnn_enabled: bool = True,
) -> Tensor:  # fmt: skip
    """``nn.functional.instance_norm``, weight and bias before the running statistics."""
    statistics = (running_mean, running_var)
    return F.instance_norm(input, *statistics, weight, bias, use_input_stats, momentum, eps)


def layer_norm(
    input: Tensor, normalized_shape: Sequence[int], weight: Tensor | None = None,
    bias: Tensor | None = None, eps: float = 1e-5, cudnn_enable: bool = True,
) -> Tensor:  # fmt: skip
    """``nn.functional.layer_norm``."""
    return F.layer_norm(input, normalized_shape, weight, bias, eps)


def group_norm(
    input: Tensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None,
    eps: float = 1e-5, cudnn_enabled: bool = True,
) -> Tensor:  # fmt: skip
    """``nn.functional.group_norm``."""
    return F.group_norm(input, num_groups, weight, bias, eps)


def embedding(
    weight: Tensor, indices: Tensor, padding_idx: int = -1, scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Tensor:  # fmt: skip
    """``nn.functional.embedding``, the weight first; ``padding_idx`` below 0: no padding."""
    pad = None if padding_idx < 0 else padding_idx
    return F.embedding(
        indices, weight, pad, scale_grad_by_freq=scale_grad_by_freq, sparse=sparse
    )  # fmt: skip


def adaptive_max_pool1d(input: Tensor, output_size: Any) -> tuple[Tensor, Tensor]:
    """``nn.functional.adaptive_max_pool1d`` with indices."""
    found: tuple[Tensor, Tensor] = F.adaptive_max_pool1d(input, output_size, True)
    return found


def max_pool1d_with_indices(
    input: Tensor, kernel_size: Any, stride: Any = (), padding: Any = 0, dilation: Any = 1,
    ceil_mode: bool = False,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """``nn.functional.max_pool1d`` with indices."""
    given = (kernel_size, stride, padding, dilation, ceil_mode, True)
    found: tuple[Tensor, Tensor] = F.max_pool1d(input, *given)
    return found


# ---- losses ----------------------------------------------------------------------------


def _reduced(loss: Callable[..., Tensor], *args: Any, reduction: int, **kwargs: Any) -> Tensor:
    if isinstance(reduction, bool) or reduction not in range(len(_REDUCTIONS)):
        raise ValueError(f"{loss.__name__}: reduction is 0, 1 or 2, not {reduction!r}")
    return loss(*args, reduction=_REDUCTIONS[reduction], **kwargs)


def binary_cross_entropy_with_logits(
    input: Tensor, target: Tensor, weight: Tensor | None = None,
    pos_weight: Tensor | None = None, reduction: int = MEAN,
) -> Tensor:  # fmt: skip
    """``nn.functional.binary_cross_entropy_with_logits``."""
    given = {"weight": weight, "pos_weight": pos_weight}
    loss = F.binary_cross_entropy_with_logits
    return _reduced(loss, input, target, reduction=reduction, **given)


def cosine_embedding_loss(
    input1: Tensor, input2: Tensor, target: Tensor, margin: float = 0.0, reduction: int = MEAN
) -> Tensor:
    """``nn.functional.cosine_embedding_loss``."""
    loss = F.cosine_embedding_loss
    return _reduced(loss, input1, input2, target, margin=margin, reduction=reduction)


def ctc_loss(
    log_probs: Tensor, targets: Tensor, input_lengths: Any, target_lengths: Any, blank: int = 0,
    reduction: int = MEAN, zero_infinity: bool = False,
) -> Tensor:  # fmt: skip
    """``nn.functional.ctc_loss``."""
    given = {"blank": blank, "zero_infinity": zero_infinity}
    lengths = (input_lengths, target_lengths)
    return _reduced(F.ctc_loss, log_probs, targets, *lengths, reduction=reduction, **given)


def hinge_embedding_loss(
    input: Tensor, target: Tensor, margin: float = 1.0, reduction: int = MEAN
) -> Tensor:
    """``nn.functional.hinge_embedding_loss``."""
    return _reduced(F.hinge_embedding_loss, input, target, margin=margin, reduction=reduction)


def kl_div(
    input: Tensor, target: Tensor, reduction: int = MEAN, *, log_target: bool = False
) -> Tensor:
    """``nn.functional.kl_div``, without its warning that a mean is over all elements."""
    if reduction == MEAN:
        every: Tensor = F.kl_div(input, target, reduction="none", log_target=log_target)
        return every.mean()  # type: ignore[no-any-return]
    return _reduced(F.kl_div, input, target, log_target=log_target, reduction=reduction)


def margin_ranking_loss(
    input1: Tensor, input2: Tensor, target: Tensor, margin: float = 0.0, reduction: int = MEAN
) -> Tensor:
    """``nn.functional.margin_ranking_loss``."""
    loss = F.margin_ranking_loss
    return _reduced(loss, input1, input2, target, margin=margin, reduction=reduction)


def poisson_nll_loss(
    input: Tensor, target: Tensor, log_input: bool, full: bool, eps: float, reduction: int
) -> Tensor:
    """``nn.functional.poisson_nll_loss``."""
    given = {"log_input": log_input, "full": full, "eps": eps}
    return _reduced(F.poisson_nll_loss, input, target, reduction=reduction, **given)


def triplet_margin_loss(
    anchor: Tensor, positive: Tensor, negative: Tensor, margin: float = 1.0, p: float = 2,
    eps: float = 1e-6, swap: bool = False, reduction: int = MEAN,
) -> Tensor:  # fmt: skip
    """``nn.functional.triplet_margin_loss``."""
    given = {"margin": margin, "p": p, "eps": eps, "swap": swap}
    three = (anchor, positive, negative)
    return _reduced(F.triplet_margin_loss, *three, reduction=reduction, **given)
