"""Unfolding, resizing and sampling against NumPy's and SciPy's interpolation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import ndimage

import graphflow as gf
import graphflow.nn.functional as F

Array = np.ndarray[Any, Any]


def test_columns_and_back() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 3, 7, 6))
    options: dict[str, Any] = {"dilation": (2, 1), "padding": (1, 0), "stride": (1, 2)}
    columns = F.unfold(gf.tensor(x), (3, 2), **options)
    padded = np.pad(x, [(0, 0), (0, 0), (1, 1), (0, 0)])
    expected = [
        padded[:, :, i : i + 5 : 2, j : j + 2].reshape(2, -1)
        for i in range(5)
        for j in range(0, 5, 2)
    ]
    assert np.array_equal(columns.numpy(), np.stack(expected, -1))
    y = gf.tensor(rng.standard_normal(tuple(columns.shape)))
    compiled = gf.compile(lambda y: F.fold(y, (7, 6), (3, 2), **options))
    for back in (F.fold(y, (7, 6), (3, 2), **options), compiled(y)):
        adjoint = (back.numpy() * x).sum()
        assert adjoint == pytest.approx((columns.numpy() * y.numpy()).sum())
    with pytest.raises(gf.GraphFlowError, match="columns"):
        F.fold(y, (8, 6), (3, 2), **options)


def places(extent: int, wanted: int, align: bool) -> Array:
    numbers = np.arange(wanted)
    if align:
        return numbers * (extent - 1) / max(1, wanted - 1)
    return (numbers + 0.5) * extent / wanted - 0.5


def along(x: Array, axis: int, at: Array, order: int) -> Array:
    """Interpolation along one axis with the ends repeated; cubic by Keys' kernel."""
    extent = x.shape[axis]
    if order == 1:
        return np.apply_along_axis(lambda v: np.interp(at, np.arange(extent), v), axis, x)
    weights = np.zeros((len(at), extent))
    for row, place in enumerate(at):
        for k in range(int(np.floor(place)) - 1, int(np.floor(place)) + 3):
            d = abs(place - k)
            near = 1.25 * d**3 - 2.25 * d**2 + 1
            far = -0.75 * (d**3 - 5 * d**2 + 8 * d - 4)
            weights[row, min(max(k, 0), extent - 1)] += near if d <= 1 else far if d < 2 else 0
    return np.moveaxis(np.tensordot(weights, np.moveaxis(x, axis, 0), 1), 0, axis)


@pytest.mark.parametrize("align", [True, False])
@pytest.mark.parametrize(
    ("mode", "shape", "wanted"),
    [("linear", (2, 3, 7), (11,)), ("bilinear", (2, 3, 5, 8), (9, 4)),
     ("bicubic", (1, 2, 6, 5), (9, 11)), ("trilinear", (1, 2, 3, 4, 5), (5, 4, 7))],
)  # fmt: skip
def test_smooth_resizing(mode: str, shape: Any, wanted: Any, align: bool) -> None:
    x = np.random.default_rng(1).standard_normal(shape)
    expected = x
    for axis, size in enumerate(wanted, start=2):
        at = places(shape[axis], size, align)
        expected = along(expected, axis, at, 3 if mode == "bicubic" else 1)

    def resize(x: Any) -> Any:
        return F.interpolate(x, wanted, mode=mode, align_corners=align)

    for run in (resize, gf.compile(resize)):
        np.testing.assert_allclose(run(gf.tensor(x)).numpy(), expected, atol=1e-12)


def test_nearest_and_area() -> None:
    x = np.random.default_rng(2).standard_normal((2, 3, 6, 4)).astype(np.float32)
    up = F.interpolate(gf.tensor(x), scale_factor=(2, 3)).numpy()
    assert np.array_equal(up, x.repeat(2, 2).repeat(3, 3))
    down = F.interpolate(gf.tensor(x), (4, 3), mode="nearest").numpy()
    assert np.array_equal(down, x[:, :, [0, 1, 3, 4]][:, :, :, [0, 1, 2]])
    exact = F.interpolate(gf.tensor(x), (4, 3), mode="nearest-exact").numpy()
    assert np.array_equal(exact, x[:, :, [0, 2, 3, 5]][:, :, :, [0, 2, 3]])
    area = F.interpolate(gf.tensor(x), (3, 2), mode="area").numpy()
    np.testing.assert_allclose(area, x.reshape(2, 3, 3, 2, 2, 2).mean((3, 5)), rtol=1e-5, atol=1e-6)


def test_nearest_neighbours_of_images_that_keep_or_double_their_size() -> None:
    """A factor that is rounded to them is not heard; in other dimensions it is."""
    x = np.random.default_rng(12).standard_normal((2, 3, 7, 7)).astype(np.float32)
    same = F.interpolate(gf.tensor(x), scale_factor=1.1)
    double = F.interpolate(gf.tensor(x), scale_factor=2.05)
    assert np.array_equal(same.numpy(), x)
    assert np.array_equal(double.numpy(), x.repeat(2, 2).repeat(2, 3))
    row = F.interpolate(gf.tensor(x[0]), scale_factor=1.1).numpy()
    assert np.array_equal(row, x[0][..., (np.arange(7) / np.float32(1.1)).astype(int)])


def test_the_axis_of_which_least_is_left_comes_first() -> None:
    def turns(shape: Any, wanted: Any) -> list[int]:
        graph = gf.trace(
            lambda x: F.interpolate(x, wanted, mode="bilinear"), gf.zeros(2, 3, *shape)
        )
        return list(dict.fromkeys(n.attrs["axis"] for n in graph.nodes if n.op.name == "take"))

    assert turns((20, 20), (10, 10)) == [2, 3]
    assert turns((20, 20), (40, 40)) == [3, 2]
    assert turns((20, 20), (18, 4)) == [3, 2]
    assert turns((20, 20), (4, 18)) == [2, 3]


def test_bytes_are_rounded_after_each_pass() -> None:
    x = np.random.default_rng(13).integers(0, 256, (2, 3, 5, 7)).astype(np.uint8)
    for mode in ("bilinear", "bicubic"):
        expected = x.astype(np.float64)
        for axis, size in ((3, 11), (2, 4)):
            at = places(x.shape[axis], size, False)
            expected = along(expected, axis, at, 3 if mode == "bicubic" else 1)
            expected = np.clip(np.floor(expected + 0.5), 0, 255)

        def resize(x: Any, mode: str = mode) -> Any:
            return F.interpolate(x, (4, 11), mode=mode)

        for run in (resize, gf.compile(resize)):
            found = run(gf.tensor(x))
            assert found.dtype == gf.uint8
            assert np.array_equal(found.numpy(), expected)


def covering(x: Array, axis: int, wanted: int, cubic: bool) -> Array:
    """Resized along ``axis`` by a kernel as wide as the step between results."""
    extent = x.shape[axis]
    step = extent / wanted
    d = np.abs(np.arange(extent) + 0.5 - (np.arange(wanted)[:, None] + 0.5) * step) / max(step, 1)
    near, far = 1.5 * d**3 - 2.5 * d**2 + 1, -0.5 * (d**3 - 5 * d**2 + 8 * d - 4)
    line = np.maximum(1 - d, 0)
    weights = np.where(d < 1, near, np.where(d < 2, far, 0)) if cubic else line
    weights /= weights.sum(1, keepdims=True)
    return np.moveaxis(np.tensordot(weights, np.moveaxis(x, axis, 0), 1), 0, axis)


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
@pytest.mark.parametrize("wanted", [(4, 5), (13, 3), (9, 14), (1, 1)])
def test_shrinking_without_aliases(mode: str, wanted: tuple[int, int]) -> None:
    x = np.random.default_rng(14).standard_normal((2, 3, 9, 11))
    expected = covering(covering(x, 3, wanted[1], mode == "bicubic"), 2, wanted[0],
                        mode == "bicubic")  # fmt: skip

    def resize(x: Any) -> Any:
        return F.interpolate(x, wanted, mode=mode, antialias=True)

    for run in (resize, gf.compile(resize)):
        np.testing.assert_allclose(run(gf.tensor(x)).numpy(), expected, atol=1e-12)


def test_the_gradient_of_resizing_is_the_adjoint() -> None:
    rng = np.random.default_rng(3)
    x = gf.tensor(rng.standard_normal((1, 2, 5, 6)), requires_grad=True)
    direction = gf.tensor(rng.standard_normal((1, 2, 5, 6)))
    out = F.interpolate(x, (8, 9), mode="bicubic", align_corners=False)
    ct = gf.tensor(rng.standard_normal((1, 2, 8, 9)))
    (out * ct).sum().backward()
    change = F.interpolate(direction, (8, 9), mode="bicubic", align_corners=False)
    assert float((x.grad * direction).sum()) == pytest.approx(float((change * ct).sum()))


@pytest.mark.parametrize(
    ("options", "words"),
    [({}, "either size or scale_factor"), ({"size": 4, "mode": "bilinear"}, "dimensions"),
     ({"size": 4, "mode": "smooth"}, "mode must be"), ({"size": 0}, "empty"),
     ({"size": 4, "align_corners": True}, "align_corners"),
     ({"size": 4, "antialias": True}, "antialias is for bilinear and bicubic")],
)  # fmt: skip
def test_what_does_not_fit(options: dict[str, Any], words: str) -> None:
    with pytest.raises((gf.GraphFlowError, ValueError, RuntimeError), match=words):
        F.interpolate(gf.zeros(1, 1, 4), **options)


def test_sampling_inside_agrees_with_scipy() -> None:
    rng = np.random.default_rng(4)
    x, grid = rng.standard_normal((2, 3, 5, 7)), rng.uniform(-1, 1, (2, 4, 6, 2))
    expected = np.zeros((2, 3, 4, 6))
    for n, c in np.ndindex(2, 3):
        at = [(grid[n, ..., 1] + 1) / 2 * 4, (grid[n, ..., 0] + 1) / 2 * 6]
        expected[n, c] = ndimage.map_coordinates(x[n, c], at, order=1)
    for padding in ("zeros", "border", "reflection"):

        def sample(x: Any, grid: Any, padding: str = padding) -> Any:
            return F.grid_sample(x, grid, "bilinear", padding, align_corners=True)

        for run in (sample, gf.compile(sample)):
            found = run(gf.tensor(x), gf.tensor(grid)).numpy()
            np.testing.assert_allclose(found, expected, atol=1e-12)


@pytest.mark.parametrize("align", [True, False])
def test_sampling_outside(align: bool) -> None:
    """Along a row: zeros fade out, the border repeats, a reflection comes back."""
    x = gf.tensor([[[[1.0, 2.0, 3.0, 4.0]]]])

    def at(place: float, padding: str) -> float:
        coordinate = 2 * place / 3 - 1 if align else (2 * place + 1) / 4 - 1
        grid = gf.tensor([[[[coordinate, 0.0]]]])
        return float(F.grid_sample(x, grid, "bilinear", padding, align))

    assert at(3.5, "zeros") == pytest.approx(2.0, abs=1e-5)
    assert at(9.0, "zeros") == 0.0
    assert at(4.5, "border") == pytest.approx(4.0)
    assert at(4.0, "reflection") == pytest.approx(3.0 if align else 4.0, abs=1e-5)
    assert at(-1.25, "reflection") == pytest.approx(2.25 if align else 1.25, abs=1e-5)


def test_an_affine_grid_of_the_identity_shows_the_image() -> None:
    x = gf.tensor(np.random.default_rng(5).standard_normal((1, 2, 4, 5)))
    theta = gf.tensor(np.array([[[1.0, 0, 0], [0, 1, 0]]]))
    for align in (True, False):
        grid = F.affine_grid(theta, (1, 2, 4, 5), align)
        for mode in ("bilinear", "nearest", "bicubic"):
            shown = F.grid_sample(x, grid, mode, align_corners=align)
            np.testing.assert_allclose(shown.numpy(), x.numpy(), atol=1e-12)
