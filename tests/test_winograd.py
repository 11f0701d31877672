"""Convolution by Winograd's transforms: exact matrices, kernels, errors, and when it is chosen."""

from fractions import Fraction
from typing import Any

import numpy as np
import pytest

import graphflow as gf
import graphflow.nn.functional as F
from graphflow.ir.build import emit, input_node
from graphflow.ir.formulas.winograd import POINTS, TAPS, matrix
from graphflow.ir.graph import Graph
from graphflow.ir.types import TensorType, float32
from graphflow.passes.winograd import Winograd

BOUNDS = {2: 1.5e-6, 4: 6e-6}
"""Largest error of a tile size, in units of the largest result, as docs/convolution.md says."""


def times(m: Any, v: Any) -> list[Fraction]:
    """A matrix of fractions times a vector."""
    return [sum((p * q for p, q in zip(row, v, strict=True)), Fraction(0)) for row in m]


@pytest.mark.parametrize("size", POINTS)
def test_the_matrices_correlate_exactly(size: int) -> None:
    rng = np.random.default_rng(size)
    d = [Fraction(int(v)) for v in rng.integers(-9, 9, size + TAPS - 1)]
    g = [Fraction(int(v)) for v in rng.integers(-9, 9, TAPS)]
    wanted = [sum(d[i + k] * g[k] for k in range(TAPS)) for i in range(size)]
    products = [
        p * q for p, q in zip(times(matrix("input", size), d), times(matrix("taps", size), g))
    ]
    assert times(matrix("result", size), products) == wanted


def convolved(x: Any, w: Any, pads: tuple[int, int]) -> Any:
    """Images under taps, tap by tap in float64."""
    x, w = np.asarray(x, np.float64), np.asarray(w, np.float64)
    x = np.pad(x, ((0, 0), (0, 0), *((p, p) for p in pads)))
    high, wide = (d - 2 for d in x.shape[2:])
    shown = (x[:, :, i : i + high, j : j + wide] for i in range(3) for j in range(3))
    terms = zip(shown, w.reshape(*w.shape[:2], 9).transpose(2, 1, 0), strict=True)
    return sum(np.tensordot(s, t, (1, 0)).transpose(0, 3, 1, 2) for s, t in terms)


def gradients(x: Any, w: Any, ct: Any, pads: tuple[int, int]) -> tuple[Any, Any]:
    """Those of the image and of the taps, in float64."""
    flipped = np.flip(w, (2, 3)).swapaxes(0, 1)
    dx = convolved(ct, flipped, (2 - pads[0], 2 - pads[1]))
    x = np.pad(np.asarray(x, np.float64), ((0, 0), (0, 0), *((p, p) for p in pads)))
    high, wide = ct.shape[2:]
    dw = np.zeros(w.shape)
    for i in range(3):
        for j in range(3):
            shown = x[:, :, i : i + high, j : j + wide]
            dw[:, :, i, j] = np.tensordot(ct.astype(np.float64), shown, ((0, 2, 3), (0, 2, 3)))
    return dx, dw


def step(pads: tuple[int, int], size: int | None = None, dynamic: Any = False) -> Any:
    """A compiled program of a convolution and both gradients."""

    def run(x: Any, w: Any, ct: Any) -> Any:
        x, w = (t.detach().requires_grad_() for t in (x, w))
        y = F.conv2d(x, w, padding=pads)
        return (y, *gf.autograd.grad(y, (x, w), ct))

    passes = [Winograd((size,), always=True)] if size else None
    return gf.compile(run, passes=passes, dynamic=dynamic)


def kernels(program: Any) -> set[str]:
    """The kernels of the last program, up to their target."""
    names = [kernel.name for kernel in program.explain().kernels]
    return {"_".join(name.split("_")[:4]) for name in names if name.startswith("winograd")}


SHAPES = [
    (2, 16, 9, 11, 24, (1, 1)), (1, 64, 16, 16, 70, (0, 2)), (9, 32, 3, 3, 33, (1, 1)),
    (40, 8, 18, 18, 8, (1, 1)), (5, 300, 6, 5, 20, (1, 0)), (2, 20, 6, 5, 300, (1, 1)),
]  # fmt: skip


@pytest.mark.parametrize("size", POINTS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_convolution_and_gradients_are_right(shape: Any, size: int) -> None:
    n, c, high, wide, k, pads = shape
    rng = np.random.default_rng(high)
    x, w = (rng.standard_normal(d, np.float32) for d in ((n, c, high, wide), (k, c, 3, 3)))
    outer = (n, k, high + 2 * pads[0] - 2, wide + 2 * pads[1] - 2)
    ct = rng.standard_normal(outer, np.float32)
    program = step(pads, size)
    found = program(*map(gf.tensor, (x, w, ct)))
    wanted = (convolved(x, w, pads), *gradients(x, w, ct, pads))
    for name, one, other in zip("y dx dw".split(), found, wanted, strict=True):
        error = np.abs(one.numpy() - other).max() / np.abs(other).max()
        assert error < BOUNDS[size], f"{name} of {shape}: {error:.1e}"
    used = kernels(program)
    assert any(name.endswith(f"f32_{size}") for name in used), used


@pytest.mark.parametrize("size", POINTS)
def test_one_program_serves_any_number_of_images(size: int) -> None:
    """Also fewer than there are sums of tiles to be put together."""

    program = step((1, 1), size, dynamic={"x": {0: "n"}, "ct": {0: "n"}})
    rng = np.random.default_rng(size)
    w = rng.standard_normal((10, 9, 3, 3), np.float32)
    for n in (700, 1, 2, 7, 90):
        x = rng.standard_normal((n, 9, 9, 7), np.float32)
        ct = rng.standard_normal((n, 10, 9, 7), np.float32)
        found = program(*map(gf.tensor, (x, w, ct)))
        wanted = (convolved(x, w, (1, 1)), *gradients(x, w, ct, (1, 1)))
        for name, one, other in zip("y dx dw".split(), found, wanted, strict=True):
            error = np.abs(one.numpy() - other).max() / np.abs(other).max()
            assert error < BOUNDS[size], f"{name} of {n} images: {error:.1e}"
    assert not program.recompiles
    roles = {name.split("_")[1] for name in kernels(program)}
    assert roles == {"taps", "image", "gradient", "back"}


def test_what_follows_sums_over_halves_of_the_channels_is_right() -> None:
    """The second layer's gradient of the image goes through relu's, in the kernel that adds."""

    def run(x: Any, v: Any, w: Any, ct: Any) -> Any:
        x = x.detach().requires_grad_()
        y = F.conv2d(F.relu(F.conv2d(x, v, padding=1)), w, padding=1)
        return gf.autograd.grad(y, x, ct)[0]

    rng = np.random.default_rng(7)
    x, v, w, ct = (
        rng.standard_normal(shape, np.float32)
        for shape in ((6, 40, 11, 10), (136, 40, 3, 3), (200, 136, 3, 3), (6, 200, 11, 10))
    )
    program = gf.compile(run)
    found = program(*map(gf.tensor, (x, v, w, ct))).numpy()
    hidden = convolved(x, v, (1, 1))
    inner = gradients(np.maximum(hidden, 0), w, ct, (1, 1))[0] * (hidden > 0)
    wanted = gradients(x, v, inner, (1, 1))[0]
    assert np.abs(found - wanted).max() < 2 * max(BOUNDS.values()) * np.abs(wanted).max()
    adds = [k.ir for k in program.explain().kernels if k.name.startswith("halves")]
    assert any("where" in ir or "mul" in ir for ir in adds), adds  # relu's gradient


def activations(rng: Any, shape: Any) -> Any:
    """What a layer of a network reads: half of it zero, channels of unlike scale, smooth."""
    raw = rng.standard_normal(shape)
    for axis in (2, 3):
        raw = raw + np.roll(raw, 1, axis)
    scale = np.exp(rng.standard_normal((1, shape[1], 1, 1)))
    return np.maximum(raw * scale, 0).astype(np.float32)


@pytest.mark.parametrize("size", POINTS)
@pytest.mark.parametrize("channels", [64, 256])
def test_the_error_is_bounded(channels: int, size: int) -> None:
    rng = np.random.default_rng(channels)
    w = (rng.standard_normal((64, channels, 3, 3)) / np.sqrt(4.5 * channels)).astype(np.float32)
    run = gf.compile(
        lambda x, w: F.conv2d(x, w, padding=1),
        passes=[Winograd((size,), always=True)],
        dynamic=False,
    )
    for make in (activations, lambda rng, shape: rng.standard_normal(shape, np.float32)):
        x = make(rng, (4, channels, 16, 16))
        wanted = convolved(x, w, (1, 1))
        error = run(gf.tensor(x), gf.tensor(w)).numpy() - wanted
        assert np.abs(error).max() < BOUNDS[size] * np.abs(wanted).max()
        assert np.sqrt(np.mean(error**2)) < 0.5 * BOUNDS[size] * np.sqrt(np.mean(wanted**2))


@pytest.mark.parametrize(
    "images, high, filters", [(3, 17, 24), (1, 6, 70), (30, 17, 24), (1, 6, 150)]
)
def test_more_threads_give_the_same_bits(images: int, high: int, filters: int) -> None:
    """Of some tiles, of so few that filters are shared out, and of so many that tiles are."""
    x, w = gf.randn(images, 16, high, 14), gf.randn(filters, 16, 3, 3)
    ct = gf.randn(images, filters, high, 14)
    before = gf.get_num_threads()
    found = []
    for threads in (1, 2, 3):
        gf.set_num_threads(threads)
        try:
            found.append([t.numpy() for t in step((1, 1), 4)(x, w, ct)])
        finally:
            gf.set_num_threads(before)
    for other in found[1:]:
        assert all(np.array_equal(a, b) for a, b in zip(found[0], other, strict=True))


@pytest.mark.parametrize(
    "case",
    [
        {"stride": 2}, {"dilation": 2}, {"groups": 2}, {"dtype": gf.float64}, {"channels": 3},
        {"taps": 5}, {"images": 0},
    ],
    ids=str,
)  # fmt: skip
def test_the_rest_is_direct(case: dict[str, Any]) -> None:
    dtype, c = case.pop("dtype", gf.float32), case.pop("channels", 16)
    taps, groups = case.pop("taps", 3), case.get("groups", 1)
    x = gf.zeros(case.pop("images", 4), c, 16, 16, dtype=dtype)
    w = gf.zeros(16, c // groups, taps, taps, dtype=dtype)
    graph = gf.trace(lambda x, w: F.conv2d(x, w, padding=1, **case), x, w)
    assert Winograd().run(graph).hash() == graph.hash()


def test_it_can_be_switched_off() -> None:
    x, w, ct = gf.randn(2, 16, 12, 12), gf.randn(16, 16, 3, 3), gf.randn(2, 16, 12, 12)
    program = step((1, 1))
    program(x, w, ct)
    assert len(kernels(program)) == 3
    with gf.backends.nnpack.flags(enabled=False):
        program(x, w, ct)
        assert not kernels(program)
        assert "nnpack" in str(program.explain())
    program(x, w, ct)
    assert len(kernels(program)) == 3


def test_what_follows_runs_on_tiles_of_pixels() -> None:
    types = [(2, 9, 10, 8), (24, 8, 3, 3), (24,), (2, 9, 10, 24)]
    x, w, bias, more = (input_node(f"x{i}", TensorType(float32, s)) for i, s in enumerate(types))
    taps = emit("winograd_taps", w, size=4)
    y = emit(
        "winograd", x, taps, size=4, filters=24, low=(1, 1), high=(1, 1), last=True
    )  # fmt: skip
    biased = emit("add", y, emit("expand", bias, shape=(2, 9, 10, 24)))
    graph = Graph((x, w, bias, more), (emit("relu", emit("add", biased, more)),), name="tail")
    program = gf.compile(graph)
    rng = np.random.default_rng(5)
    given = [rng.standard_normal(s, np.float32) for s in types]
    found = program(*map(gf.tensor, given)).numpy()
    plain = convolved(given[0].transpose(0, 3, 1, 2), given[1], (1, 1)).transpose(0, 2, 3, 1)
    wanted = np.maximum(plain + given[2] + given[3], 0)
    assert np.abs(found - wanted).max() < BOUNDS[4] * np.abs(wanted).max()
    assert len(program.explain().kernels) == 2  # the taps, and the rest in one call
