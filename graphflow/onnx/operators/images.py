"""Resizing, sampling, cropping."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphflow.errors import GraphError
from graphflow.onnx.operators.table import F, axes_of, gf, ints, operator
from graphflow.tensor import Tensor

Array = np.ndarray[Any, Any]


@operator("Resize", known=("roi", "scales", "sizes"))
def resize(
    X: Tensor, roi: Any = None, scales: Any = None, sizes: Any = None, *, antialias: int = 0,
    axes: Any = None, coordinate_transformation_mode: str = "half_pixel",
    cubic_coeff_a: float = -0.75, exclude_outside: int = 0, extrapolation_value: float = 0.0,
    keep_aspect_ratio_policy: str = "stretch", mode: str = "nearest",
    nearest_mode: str = "round_prefer_floor",
) -> Any:  # fmt: skip
    """The operand resized along its axes: every one is a matrix of weights."""
    chosen = axes_of(axes, X.ndim) if axes is not None else tuple(range(X.ndim))
    extents = [int(X.shape[a]) for a in chosen]
    ratios, lengths = _targets(extents, scales, sizes, keep_aspect_ratio_policy)
    region = np.asarray(roi).reshape(2, -1) if roi is not None and np.size(roi) else None
    out, outside = X, None
    for k, axis in enumerate(chosen):
        span = None if region is None else (float(region[0, k]), float(region[1, k]))
        places = source_places(
            coordinate_transformation_mode, lengths[k], ratios[k], extents[k], span
        )
        if lengths[k] == extents[k] and np.array_equal(places, np.arange(extents[k])):
            continue
        stretch = min(1.0, ratios[k]) if antialias else 1.0
        kernel = {"cubic": _cubic(cubic_coeff_a), "linear": _linear}.get(mode)
        if kernel is None:
            index = np.clip(_nearest(places, nearest_mode), 0, extents[k] - 1)
            out = gf.index_select(out, axis, gf.tensor(index.astype(np.int64)))
        else:
            weights = resampling(places, extents[k], kernel, stretch, bool(exclude_outside))
            out = _applied(out, axis, weights)
        if coordinate_transformation_mode == "tf_crop_and_resize":
            beyond = (places < 0) | (places > extents[k] - 1)
            column = beyond.reshape([-1 if a == axis else 1 for a in range(X.ndim)])
            outside = column if outside is None else outside | column
    if outside is None or not outside.any():
        return out
    return gf.where(gf.tensor(outside), gf.tensor(extrapolation_value, dtype=X.dtype), out)


def _targets(extents: list[int], scales: Any, sizes: Any, policy: str) -> Any:
    if sizes is None or not np.size(sizes):
        ratios = [float(s) for s in np.asarray(scales).reshape(-1)]
        return ratios, [int(np.floor(n * s)) for n, s in zip(extents, ratios)]
    lengths = list(ints(sizes))
    ratios = [n / extent for n, extent in zip(lengths, extents)]
    if policy != "stretch":
        ratio = (min if policy == "not_larger" else max)(ratios)
        return [ratio] * len(extents), [int(np.floor(n * ratio + 0.5)) for n in extents]
    return ratios, lengths


def source_places(
    mode: str, length: int, ratio: float, extent: int, span: tuple[float, float] | None
) -> Array:
    """Where each element of the result lies in the operand."""
    at = np.arange(length, dtype=np.float64)
    if mode == "half_pixel":
        return np.asarray((at + 0.5) / ratio - 0.5)
    if mode == "half_pixel_symmetric":
        wanted = ratio * extent
        return np.asarray(extent / 2 * (1 - length / wanted) + (at + 0.5) / ratio - 0.5)
    if mode == "pytorch_half_pixel":
        return np.asarray((at + 0.5) / ratio - 0.5 if length > 1 else np.zeros(length))
    if mode == "align_corners":
        return np.asarray(at * (extent - 1) / max(length - 1, 1))
    if mode == "asymmetric":
        return np.asarray(at / ratio)
    if mode == "tf_crop_and_resize" and span is not None:
        first, last = span
        if length > 1:
            steps = at * (last - first) * (extent - 1) / (length - 1)
            return np.asarray(first * (extent - 1) + steps)
        return np.full(length, 0.5 * (first + last) * (extent - 1))
    raise GraphError(f"coordinate_transformation_mode {mode!r} is not supported")


def _nearest(places: Array, mode: str) -> Array:
    rounded: dict[str, Any] = {
        "round_prefer_floor": lambda x: np.ceil(x - 0.5), "floor": np.floor, "ceil": np.ceil,
        "round_prefer_ceil": lambda x: np.floor(x + 0.5),
    }  # fmt: skip
    return np.asarray(rounded[mode](places))


def _linear(distance: Array) -> Array:
    return np.asarray(np.maximum(1 - np.abs(distance), 0))


def _cubic(a: float) -> Any:
    """Keys' kernel with free coefficient ``a`` (R. Keys, IEEE ASSP 29, 1981)."""

    def kernel(distance: Array) -> Array:
        d = np.abs(distance)
        near = ((a + 2) * d - (a + 3)) * d * d + 1
        far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
        return np.where(d <= 1, near, np.where(d < 2, far, 0))

    return kernel


def resampling(
    places: Array, extent: int, kernel: Any, stretch: float, exclude_outside: bool
) -> Array:
    """[result, operand]: the weight of every element; edges are repeated, or left out."""
    reach = int(np.ceil(2 / stretch)) + 1
    base = np.floor(places).astype(int)
    index = base[:, None] + np.arange(-reach, reach + 1)
    weights = kernel((index - places[:, None]) * stretch)
    if exclude_outside:
        weights = np.where((index < 0) | (index >= extent), 0, weights)
    weights = weights / weights.sum(1, keepdims=True)
    made = np.zeros((len(places), extent))
    rows = np.broadcast_to(np.arange(len(places))[:, None], index.shape)
    np.add.at(made, (rows, np.clip(index, 0, extent - 1)), weights)
    return made


def _applied(x: Tensor, axis: int, weights: Array) -> Any:
    matrix = gf.tensor(weights.astype(x.dtype.numpy))
    moved = gf.movedim(x, axis, -1)
    return gf.movedim(gf.matmul(moved, gf.t(matrix)), -1, axis)


@operator("Upsample", known=("scales",))
def upsample(X: Tensor, scales: Any, *, mode: str = "nearest") -> Any:
    """The older form of Resize."""
    options: Any = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    return resize(X, None, scales, mode=mode, **options)


@operator("GridSample")
def grid_sample(
    X: Tensor, grid: Tensor, *, align_corners: int = 0, mode: str = "linear",
    padding_mode: str = "zeros",
) -> Any:  # fmt: skip
    """The operand at the places of a grid in -1 … 1."""
    ours = {"linear": "bilinear", "cubic": "bicubic"}.get(mode, mode)
    return F.grid_sample(X, grid, ours, padding_mode, bool(align_corners))


@operator("AffineGrid", known=("size",))
def affine_grid(theta: Tensor, size: Any, *, align_corners: int = 0) -> Any:
    """The places of an even grid under affine maps."""
    return F.affine_grid(theta, list(ints(size)), bool(align_corners))


@operator("CenterCropPad", known=("shape",))
def center_crop_pad(input_data: Tensor, shape: Any, *, axes: Any = None) -> Any:
    """The middle of the operand, or zeros around it, until it has this shape."""
    chosen = axes_of(axes, input_data.ndim) if axes is not None else range(input_data.ndim)
    for axis, wanted in zip(chosen, ints(shape)):
        extent = int(input_data.shape[axis])
        if wanted <= extent:
            input_data = gf.narrow(input_data, axis, (extent - wanted) // 2, wanted)
        else:
            low = (wanted - extent) // 2
            sides = [(0, 0)] * input_data.ndim
            sides[axis] = (low, wanted - extent - low)
            input_data = F.pad(input_data, [n for pair in sides[::-1] for n in pair])
    return input_data


@operator("RoiAlign")
def roi_align(
    X: Tensor, rois: Tensor, batch_indices: Tensor, *, mode: str = "avg", output_height: int = 1,
    output_width: int = 1, sampling_ratio: int = 0, spatial_scale: float = 1.0,
    coordinate_transformation_mode: str = "half_pixel", opset: int,
) -> Any:  # fmt: skip
    """Means (or maxima) of points sampled in the cells of regions."""
    if sampling_ratio <= 0:
        raise GraphError("RoiAlign needs a sampling_ratio: without, it depends on the regions")
    half = opset >= 16 and coordinate_transformation_mode == "half_pixel"
    scaled = gf.sub(gf.mul(rois, spatial_scale), 0.5 if half else 0.0)
    x1, y1, x2, y2 = (scaled[:, k] for k in range(4))
    points = []
    for first, last, cells in ((y1, y2, output_height), (x1, x2, output_width)):
        span = gf.sub(last, first)
        span = span if half else gf.clamp(span, min=1.0)
        steps = (np.arange(cells * sampling_ratio) + 0.5) / (cells * sampling_ratio)
        at = gf.tensor(steps.astype(X.dtype.numpy))
        points.append(gf.add(first.unsqueeze(1), gf.mul(span.unsqueeze(1), at)))
    sampled = [_axis_weights(p, int(X.shape[2 + k])) for k, p in enumerate(points)]
    images = gf.index_select(X, 0, batch_indices)
    made = gf.einsum("rih,rchw,rjw->rcij", sampled[0], images, sampled[1])
    ratio = sampling_ratio
    cells = made.reshape(made.shape[0], made.shape[1], output_height, ratio, output_width, ratio)
    if mode == "avg":
        return gf.mean(cells, (3, 5))
    raise GraphError("RoiAlign with mode 'max' is not supported")


def _axis_weights(points: Tensor, extent: int) -> Any:
    """[regions, points, extent]: how much of each element a point between two has."""
    inside = gf.logical_and(gf.ge(points, -1.0), gf.le(points, float(extent)))
    at = gf.clamp(points, 0.0, extent - 1.0).unsqueeze(-1)
    distance = gf.abs(gf.sub(at, gf.arange(extent).to(points.dtype)))
    weights = gf.clamp(gf.sub(1.0, distance), min=0.0)
    return gf.mul(weights, inside.unsqueeze(-1).to(points.dtype))
