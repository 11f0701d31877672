"""Convolution and its transpose in one, two and three dimensions."""

from __future__ import annotations

from typing import Any

from graphflow.autocasting import in_lower_precision
from graphflow.backends import nnpack
from graphflow.checks import need_int, need_tensor
from graphflow.dispatch import apply
from graphflow.errors import DTypeError, ShapeError
from graphflow.functions.elementwise import add
from graphflow.functions.shaping import flip, permute, reshape, squeeze, unsqueeze
from graphflow.nn.sizes import per_dimension
from graphflow.tensor import Tensor

__all__ = [
    "conv1d", "conv2d", "conv3d", "conv_tbc", "conv_transpose1d", "conv_transpose2d",
    "conv_transpose3d",
]  # fmt: skip


def conv1d(
    input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Any = 1,
    padding: Any = 0, dilation: Any = 1, groups: int = 1,
) -> Tensor:  # fmt: skip
    """input [N, C, L] or [C, L] under weight [O, C / groups, K]; see :func:`conv2d`."""
    return _conv("conv1d", 1, input, weight, bias, stride, padding, dilation, groups)


def conv2d(
    input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Any = 1,
    padding: Any = 0, dilation: Any = 1, groups: int = 1,
) -> Tensor:  # fmt: skip
    """input [N, C, H, W] or [C, H, W] under weight [O, C / groups, KH, KW], plus bias [O].

    ``padding`` is a number a dimension, ``"valid"`` (none) or ``"same"`` (as many
    positions as elements; stride 1 only).  Raises ShapeError or DTypeError.
    """
    return _conv("conv2d", 2, input, weight, bias, stride, padding, dilation, groups)


def conv3d(
    input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Any = 1,
    padding: Any = 0, dilation: Any = 1, groups: int = 1,
) -> Tensor:  # fmt: skip
    """input [N, C, D, H, W] or [C, D, H, W] under weight [O, C / groups, KD, KH, KW]."""
    return _conv("conv3d", 3, input, weight, bias, stride, padding, dilation, groups)


def conv_tbc(input: Tensor, weight: Tensor, bias: Tensor, pad: int = 0) -> Tensor:
    """:func:`conv1d` of input [L, N, C] under weight [K, C, O], plus bias [O]."""
    out = conv1d(input.permute(1, 2, 0), weight.permute(2, 1, 0), bias, padding=pad)
    moved: Tensor = out.permute(2, 0, 1)
    return moved


def conv_transpose1d(
    input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Any = 1,
    padding: Any = 0, output_padding: Any = 0, groups: int = 1, dilation: Any = 1,
) -> Tensor:  # fmt: skip
    """input [N, C, L] or [C, L], weight [C, O / groups, K]; see :func:`conv_transpose2d`."""
    given = (stride, padding, output_padding, groups, dilation)
    return _conv_transpose("conv_transpose1d", 1, input, weight, bias, *given)


def conv_transpose2d(
    input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Any = 1,
    padding: Any = 0, output_padding: Any = 0, groups: int = 1, dilation: Any = 1,
) -> Tensor:  # fmt: skip
    """The gradient of :func:`conv2d` for its input, as an operation, plus bias [O].

    input [N, C, H, W] or [C, H, W], weight [C, O / groups, KH, KW]; an extent becomes
    ``(extent - 1) * stride - 2 * padding + dilation * (K - 1) + output_padding + 1``.
    """
    given = (stride, padding, output_padding, groups, dilation)
    return _conv_transpose("conv_transpose2d", 2, input, weight, bias, *given)


def conv_transpose3d(
    input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Any = 1,
    padding: Any = 0, output_padding: Any = 0, groups: int = 1, dilation: Any = 1,
) -> Tensor:  # fmt: skip
    """input [N, C, D, H, W] or [C, D, H, W], weight [C, O / groups, KD, KH, KW]."""
    given = (stride, padding, output_padding, groups, dilation)
    return _conv_transpose("conv_transpose3d", 3, input, weight, bias, *given)


@in_lower_precision
def _conv(
    name: str, dims: int, input: Tensor, weight: Tensor, bias: Tensor | None, stride: Any,
    padding: Any, dilation: Any, groups: int,
) -> Tensor:  # fmt: skip
    steps = per_dimension(name, "stride", stride, dims, 1)
    spacing = per_dimension(name, "dilation", dilation, dims, 1)
    _check_operands(name, dims, input, weight, groups)
    low, high = _padding(name, dims, padding, steps, spacing, tuple(weight.shape[2:]))
    channels, features, batched = int(input.shape[-dims - 1]), int(weight.shape[0]), input.ndim
    if weight.shape[1] * groups != channels or features % groups:
        raise ShapeError(
            f"{name}: a weight of shape {list(weight.shape)} with groups={groups} takes "
            f"{weight.shape[1] * groups} channels and a multiple of {groups} features; the "
            f"input of shape {list(input.shape)} has {channels} channels"
        )
    _check_bias(name, bias, features, input)
    _check_room(name, input, low, high, spacing, weight)
    x = input if batched == dims + 2 else unsqueeze(input, 0)
    spatial, taps = tuple(x.shape[2:]), tuple(weight.shape[2:])
    out = apply(
        "conv",
        reshape(x, (x.shape[0], groups, channels // groups, *spatial)),
        reshape(weight, (groups, features // groups, channels // groups, *taps)),
        steps=steps, low=low, high=high, spread=(1,) * dims, dilations=spacing, **_method(),
    )  # fmt: skip
    return _finished(out, bias, features, batched == dims + 2)


def _method() -> dict[str, bool]:
    """The attribute that asks for the direct method, if fast ones are switched off."""
    return {} if nnpack.is_enabled() else {"direct": True}


@in_lower_precision
def _conv_transpose(
    name: str, dims: int, input: Tensor, weight: Tensor, bias: Tensor | None, stride: Any,
    padding: Any, output_padding: Any, groups: int, dilation: Any,
) -> Tensor:  # fmt: skip
    steps = per_dimension(name, "stride", stride, dims, 1)
    edges = per_dimension(name, "padding", padding, dims, 0)
    more = per_dimension(name, "output_padding", output_padding, dims, 0)
    spacing = per_dimension(name, "dilation", dilation, dims, 1)
    _check_operands(name, dims, input, weight, groups)
    channels, batched = int(input.shape[-dims - 1]), input.ndim == dims + 2
    if weight.shape[0] != channels or channels % groups:
        raise ShapeError(
            f"{name}: a weight of shape {list(weight.shape)} takes {weight.shape[0]} channels in "
            f"{groups} groups; the input of shape {list(input.shape)} has {channels}"
        )
    if any(extra >= max(step, space) for extra, step, space in zip(more, steps, spacing)):
        raise ShapeError(
            f"{name}: output_padding {list(more)} must be smaller than stride {list(steps)} "
            f"or dilation {list(spacing)}"
        )
    each = int(weight.shape[1])
    features = each * groups
    _check_bias(name, bias, features, input)
    taps = tuple(weight.shape[2:])
    spans = [space * (size - 1) for space, size in zip(spacing, taps)]
    low = tuple(span - edge for span, edge in zip(spans, edges))
    high = tuple(before + extra for before, extra in zip(low, more))
    _check_result(name, input, low, high, steps, spans)
    x = input if batched else unsqueeze(input, 0)
    split = reshape(weight, (groups, channels // groups, each, *taps))
    axes = tuple(range(3, 3 + dims))
    out = apply(
        "conv",
        reshape(x, (x.shape[0], groups, channels // groups, *x.shape[2:])),
        flip(permute(split, (0, 2, 1, *axes)), axes),
        steps=(1,) * dims, low=low, high=high, spread=steps, dilations=spacing, **_method(),
    )  # fmt: skip
    return _finished(out, bias, features, batched)


def _finished(out: Tensor, bias: Tensor | None, features: int, batched: bool) -> Tensor:
    """``out[N, G, O, ...]`` with groups and features as one dimension, plus the bias."""
    spatial = tuple(out.shape[3:])
    out = reshape(out, (out.shape[0], features, *spatial))
    if bias is not None:
        out = add(out, reshape(bias, (features, *(1 for _ in spatial))))
    return out if batched else squeeze(out, 0)


def _padding(
    name: str, dims: int, padding: Any, steps: tuple[int, ...], spacing: tuple[int, ...],
    taps: tuple[int, ...],
) -> tuple[tuple[int, ...], tuple[int, ...]]:  # fmt: skip
    """Elements of padding before and after, a dimension."""
    if padding == "valid":
        return (0,) * dims, (0,) * dims
    if padding == "same":
        if any(step != 1 for step in steps):
            raise ShapeError(f"{name}: padding='same' needs stride 1, not {list(steps)}")
        total = [space * (size - 1) for space, size in zip(spacing, taps)]
        return tuple(t // 2 for t in total), tuple(t - t // 2 for t in total)
    if isinstance(padding, str):
        raise ValueError(f"{name}: padding must be numbers, 'valid' or 'same', not {padding!r}")
    edges = per_dimension(name, "padding", padding, dims, 0)
    return edges, edges


def _check_operands(name: str, dims: int, input: Tensor, weight: Tensor, groups: int) -> None:
    need_tensor(name, input)
    need_tensor(name, weight, "weight")
    need_int("groups", groups, 1)
    if input.ndim not in (dims + 1, dims + 2):
        raise ShapeError(
            f"{name} takes an input of {dims + 1} (unbatched) or {dims + 2} dimensions, "
            f"not one of shape {list(input.shape)}"
        )
    if weight.ndim != dims + 2:
        raise ShapeError(
            f"{name} takes a weight of {dims + 2} dimensions, not one of shape {list(weight.shape)}"
        )
    if input.dtype is not weight.dtype:
        raise DTypeError(
            f"{name} needs operands of one dtype, got {input.dtype.name} and "
            f"{weight.dtype.name}; convert one, for example weight.to({input.dtype!r})"
        )


def _check_bias(name: str, bias: Tensor | None, features: int, input: Tensor) -> None:
    if bias is None:
        return
    if tuple(need_tensor(name, bias, "bias").shape) != (features,):
        raise ShapeError(f"{name}: the bias needs shape [{features}], not {list(bias.shape)}")
    if bias.dtype is not input.dtype:
        raise DTypeError(
            f"{name}: input is {input.dtype.name} and bias {bias.dtype.name}; convert one"
        )


def _check_room(
    name: str, input: Tensor, low: tuple[int, ...], high: tuple[int, ...],
    spacing: tuple[int, ...], weight: Tensor,
) -> None:  # fmt: skip
    extents, taps = input.shape[-len(low) :], weight.shape[2:]
    for extent, before, after, space, size in zip(extents, low, high, spacing, taps):
        if extent + before + after < space * (size - 1) + 1:
            raise ShapeError(
                f"{name}: a kernel of extents {list(taps)} with dilation {list(spacing)} does not "
                f"fit an input of shape {list(input.shape)} padded by {list(low)}"
            )


def _check_result(
    name: str, input: Tensor, low: tuple[int, ...], high: tuple[int, ...],
    steps: tuple[int, ...], spans: list[int],
) -> None:  # fmt: skip
    for extent, before, after, step, span in zip(input.shape[2:], low, high, steps, spans):
        if extent and (extent - 1) * step + 1 + before + after - span < 1:
            raise ShapeError(
                f"{name}: an input of shape {list(input.shape)} with this stride, padding and "
                "kernel has no elements in its result"
            )
