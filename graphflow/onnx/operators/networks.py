"""Convolution and pooling."""

from __future__ import annotations

from math import prod
from typing import Any

from graphflow.dispatch import apply
from graphflow.errors import GraphError
from graphflow.ir import types as T
from graphflow.onnx.operators.table import F, gf, ints, operator
from graphflow.onnx.operators.windows import Windows, windows_of
from graphflow.promotion import cast
from graphflow.tensor import Tensor

LEADING = 2


@operator("Conv")
def conv(
    X: Tensor, W: Tensor, B: Tensor | None = None, *, auto_pad: str = "NOTSET",
    dilations: Any = None, group: int = 1, kernel_shape: Any = None, pads: Any = None,
    strides: Any = None,
) -> Any:  # fmt: skip
    """Convolution in any number of dimensions, by groups."""
    w = windows_of(X.shape[2:], W.shape[2:], strides, dilations, pads, auto_pad)
    if len(w.sizes) <= 3 and w.even:
        function = getattr(F, f"conv{len(w.sizes)}d")
        return function(X, W, B, w.steps, w.low, w.dilations, group)
    return _convolved(X, W, B, w, group)


def _convolved(
    x: Tensor, w: Tensor, bias: Tensor | None, windows: Windows, group: int,
    spread: tuple[int, ...] | None = None,
) -> Any:  # fmt: skip
    """The primitive, with padding of its own on either side."""
    channels, features = x.shape[1] // group, w.shape[0] // group
    out = apply(
        "conv", x.reshape(x.shape[0], group, channels, *x.shape[2:]),
        w.reshape(group, features, channels, *w.shape[2:]), steps=windows.steps,
        low=windows.low, high=windows.high, dilations=windows.dilations,
        spread=spread or (1,) * len(windows.sizes),
    )  # fmt: skip
    out = out.reshape(x.shape[0], group * features, *out.shape[3:])
    return out if bias is None else out + bias.reshape(-1, *[1] * len(windows.sizes))


@operator("ConvTranspose")
def conv_transpose(
    X: Tensor, W: Tensor, B: Tensor | None = None, *, auto_pad: str = "NOTSET",
    dilations: Any = None, group: int = 1, kernel_shape: Any = None, output_padding: Any = None,
    output_shape: Any = None, pads: Any = None, strides: Any = None,
) -> Any:  # fmt: skip
    """The gradient of convolution for its input, as an operation."""
    dims = W.ndim - LEADING
    extents = X.shape[2:]
    steps = tuple(strides) if strides else (1,) * dims
    spacing = tuple(dilations) if dilations else (1,) * dims
    more = tuple(output_padding) if output_padding else (0,) * dims
    spans = tuple(d * (k - 1) for d, k in zip(spacing, W.shape[2:]))
    low, high = _transposed_edges(extents, steps, spans, more, pads, auto_pad, output_shape)
    front = tuple(span - edge for span, edge in zip(spans, low))
    back = tuple(span - edge + m for span, edge, m in zip(spans, high, more))
    each = W.shape[1]
    axes = tuple(range(3, 3 + dims))
    split = W.reshape(group, W.shape[0] // group, each, *W.shape[2:])
    kernel = gf.flip(gf.permute(split, (0, 2, 1, *axes)), axes)
    kernel = kernel.reshape(group * each, W.shape[0] // group, *W.shape[2:])
    windows = Windows(tuple(W.shape[2:]), (1,) * dims, spacing, front, back)
    return _convolved(X, kernel, B, windows, group, steps)


def _transposed_edges(
    extents: Any, steps: Any, spans: Any, more: Any, pads: Any, auto_pad: str, shape: Any
) -> Any:
    dims = len(steps)
    if shape is None and not auto_pad.startswith("SAME"):
        edges = tuple(pads) if pads and auto_pad != "VALID" else (0,) * (2 * dims)
        return edges[:dims], edges[dims:]
    full = [s * (n - 1) + m + span + 1 for s, n, m, span in zip(steps, extents, more, spans)]
    wanted = shape[-dims:] if shape is not None else [n * s for n, s in zip(extents, steps)]
    total = [f - n for f, n in zip(full, wanted)]
    less = tuple(max(t, 0) // 2 for t in total)
    rest = tuple(t - part for t, part in zip(total, less))
    if min(total) < 0:  # more than there is: at the end
        return less, rest
    return (less, rest) if auto_pad == "SAME_UPPER" else (rest, less)


@operator("ConvInteger")
def conv_integer(
    x: Tensor, w: Tensor, x_zero_point: Tensor | None = None, w_zero_point: Tensor | None = None,
    *, auto_pad: str = "NOTSET", dilations: Any = None, group: int = 1, kernel_shape: Any = None,
    pads: Any = None, strides: Any = None,
) -> Any:  # fmt: skip
    """Convolution of 8-bit numbers less their zero points, in int32."""
    left, right = cast(x, T.int32), cast(w, T.int32)
    if x_zero_point is not None:
        left = gf.sub(left, cast(x_zero_point, T.int32))
    if w_zero_point is not None:
        zero = cast(w_zero_point, T.int32).reshape(-1, *[1] * (w.ndim - 1))
        right = gf.sub(right, zero)
    return conv(
        left, right, auto_pad=auto_pad, dilations=dilations, group=group, pads=pads,
        strides=strides,
    )  # fmt: skip


# ---- pooling -------------------------------------------------------------------------


@operator("MaxPool")
def max_pool(
    X: Tensor, *, kernel_shape: Any, auto_pad: str = "NOTSET", ceil_mode: int = 0,
    dilations: Any = None, pads: Any = None, storage_order: int = 0, strides: Any = None,
    outputs: int = 1,
) -> Any:  # fmt: skip
    """The largest element of every window, and where it is in the whole operand."""
    w = windows_of(X.shape[2:], kernel_shape, strides, dilations, pads, auto_pad, ceil_mode)
    dims = len(w.sizes)
    function = getattr(F, f"max_pool{dims}d", None)
    if function is None:
        raise GraphError(f"pooling in {dims} dimensions is not supported")
    within = all(edge <= span // 2 for edge, span in zip(w.low, w.spans))
    if w.even and within and outputs == 1:
        return function(X, w.sizes, w.steps, w.low, w.dilations)
    lowest = float("-inf") if X.dtype.is_floating_point else gf.iinfo(X.dtype).min
    padded = _padded(X, w, lowest)
    if outputs == 1:
        return function(padded, w.sizes, w.steps, 0, w.dilations)
    values, places = function(padded, w.sizes, w.steps, 0, w.dilations, return_indices=True)
    return values, _place_in_all(places, X, padded, w.low, storage_order)


def _padded(x: Tensor, w: Windows, value: Any) -> Any:
    if not any((*w.low, *w.high)):
        return x
    return apply("pad", x, low=(0, 0, *w.low), high=(0, 0, *w.high), value=value)


def _place_in_all(places: Any, x: Tensor, padded: Tensor, low: Any, column_major: int) -> Any:
    """Places in a padded channel as places in the whole operand."""
    extents, rest = x.shape[2:], places
    coordinates: list[Any] = []
    for axis in reversed(range(len(extents))):
        wide = padded.shape[2 + axis]
        coordinates.insert(0, gf.remainder(rest, wide) - low[axis])
        rest = gf.div(rest, wide, rounding_mode="floor")
    order = range(len(extents))
    flat: Any = 0
    for axis in reversed(order) if column_major else order:
        flat = flat * extents[axis] + coordinates[axis]
    channel = gf.arange(x.shape[0] * x.shape[1]).reshape(
        x.shape[0], x.shape[1], *[1] * len(extents)
    )
    return flat + channel * prod(extents)


@operator("AveragePool")
def average_pool(
    X: Tensor, *, kernel_shape: Any, auto_pad: str = "NOTSET", ceil_mode: int = 0,
    count_include_pad: int = 0, dilations: Any = None, pads: Any = None, strides: Any = None,
) -> Any:  # fmt: skip
    """The mean of every window; padding counts on request."""
    w = windows_of(X.shape[2:], kernel_shape, strides, dilations, pads, auto_pad)
    plain = w.even and not ceil_mode and set(w.dilations) == {1} and len(w.sizes) <= 3
    if plain and all(edge <= size // 2 for edge, size in zip(w.low, w.sizes)):
        function = getattr(F, f"avg_pool{len(w.sizes)}d")
        return function(X, w.sizes, w.steps, w.low, count_include_pad=bool(count_include_pad))
    ceiled = windows_of(X.shape[2:], kernel_shape, strides, dilations, pads, auto_pad, ceil_mode)
    sums = _window_sums(X, ceiled)
    ones = gf.ones((1, 1, *X.shape[2:]), dtype=X.dtype)
    if count_include_pad:
        ones = _padded(ones, w, 1.0)
        front = tuple(0 for _ in w.low)
        back = tuple(b - a for a, b in zip(w.high, ceiled.high))
        ceiled = Windows(w.sizes, w.steps, w.dilations, front, back)
    return gf.div(sums, _window_sums(ones, ceiled))


def _window_sums(x: Tensor, w: Windows) -> Any:
    """The sum of every window, channel by channel."""
    rows = x.reshape(x.shape[0] * x.shape[1], 1, *x.shape[2:])
    ones = gf.ones((1, 1, *w.sizes), dtype=x.dtype)
    made = _convolved(rows, ones, None, w, 1)
    return made.reshape(x.shape[0], x.shape[1], *made.shape[2:])


@operator("LpPool")
def lp_pool(
    X: Tensor, *, kernel_shape: Any, auto_pad: str = "NOTSET", ceil_mode: int = 0,
    dilations: Any = None, p: int = 2, pads: Any = None, strides: Any = None,
) -> Any:  # fmt: skip
    """The p-norm of every window."""
    w = windows_of(X.shape[2:], kernel_shape, strides, dilations, pads, auto_pad, ceil_mode)
    return gf.pow(_window_sums(gf.pow(gf.abs(X), p), w), 1.0 / p)


def _spatial(X: Tensor) -> tuple[int, ...]:
    return tuple(range(LEADING, X.ndim))


@operator("GlobalAveragePool")
def global_average_pool(X: Tensor) -> Any:
    """The mean of every channel."""
    return gf.mean(X, _spatial(X), keepdim=True)


@operator("GlobalMaxPool")
def global_max_pool(X: Tensor) -> Any:
    """The largest element of every channel."""
    return gf.amax(X, _spatial(X), keepdim=True)


@operator("GlobalLpPool")
def global_lp_pool(X: Tensor, *, p: int = 2) -> Any:
    """The p-norm of every channel."""
    return gf.pow(gf.sum(gf.pow(gf.abs(X), p), _spatial(X), keepdim=True), 1.0 / p)


@operator("MaxUnpool", known=("output_shape",))
def max_unpool(
    X: Tensor, places: Tensor, output_shape: Any = None, *, kernel_shape: Any, pads: Any = None,
    strides: Any = None,
) -> Any:  # fmt: skip
    """Elements put back where pooling found them, 0 elsewhere."""
    dims = len(kernel_shape)
    steps = tuple(strides) if strides else (1,) * dims
    edges = tuple(pads) if pads else (0,) * (2 * dims)
    sizes = [
        (n - 1) * s + k - edges[a] - edges[dims + a]
        for a, (n, s, k) in enumerate(zip(X.shape[2:], steps, kernel_shape))
    ]
    shape = (*X.shape[:2], *sizes) if output_shape is None else ints(output_shape)
    flat = gf.zeros((prod(shape),), dtype=X.dtype)
    return gf.scatter(flat, 0, places.reshape(-1), X.reshape(-1)).reshape(shape)


@operator("Col2Im", known=("image_shape", "block_shape"))
def col2im(
    input: Tensor, image_shape: Any, block_shape: Any, *, dilations: Any = None,
    pads: Any = None, strides: Any = None,
) -> Any:  # fmt: skip
    """The sum of columns at the places of their windows."""
    extents, sizes = ints(image_shape), ints(block_shape)
    dims = len(sizes)
    edges = tuple(pads) if pads else (0,) * (2 * dims)
    steps = tuple(strides) if strides else (1,) * dims
    spacing = tuple(dilations) if dilations else (1,) * dims
    wide = [n + edges[k] + edges[dims + k] for k, n in enumerate(extents)]
    counts = [(n - d * (k - 1) - 1) // s + 1 for n, d, k, s in zip(wide, spacing, sizes, steps)]
    channels = input.shape[1] // prod(sizes)
    parts = input.reshape(input.shape[0], channels, *sizes, *counts)
    order = (0, 1, *range(2 + dims, 2 + 2 * dims), *range(2, 2 + dims))
    base = gf.zeros((input.shape[0], channels, *wide), dtype=input.dtype)
    made = apply(
        "window_add", base, gf.permute(parts, order), axes=tuple(range(2, 2 + dims)),
        sizes=sizes, steps=steps, dilations=spacing,
    )  # fmt: skip
    inside = (slice(None), slice(None), *(slice(edges[k], edges[k] + n)
                                          for k, n in enumerate(extents)))  # fmt: skip
    return made[inside]
