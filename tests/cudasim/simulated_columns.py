"""Folds of columns on a device: tiles of them, their rows in parts, against NumPy in double.

Run by ``tests/test_cuda.py`` in the simulator.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable

import numpy as np
import pytest

import graphflow as gf
import graphflow.nn.functional as F
from graphflow import nn
from graphflow.codegen.build_schedule import build_schedule
from graphflow.codegen.cuda import columns, plain
from graphflow.codegen.cuda.lower import CUDA
from graphflow.codegen.schedule import Call, plain_steps
from graphflow.passes.pipeline import PORTABLE, run_pipeline
from graphflow.runtime.cuda.launch import CudaProgram
from graphflow.runtime.cuda.memory import DeviceArray
from tests.cudasim.models import training_step

Function = Callable[..., gf.Tensor | tuple[gf.Tensor, ...]]


def numbers(*shape: int, seed: int = 0) -> np.ndarray:
    print(f"seed {seed}")
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def kernels(function: Function, *operands: gf.Tensor) -> list[Call]:
    """The launches of a function."""
    graph = run_pipeline(gf.trace(function, *operands), PORTABLE)[-1].graph
    steps = plain_steps(build_schedule(graph, backend=CUDA).steps)
    return [step for step in steps if isinstance(step, Call)]


def tiled(function: Function, *operands: gf.Tensor) -> list[Call]:
    """Those that take tiles of columns."""
    return [c for c in kernels(function, *operands) if c.kernel.name.startswith("tile_")]


def on_device(function: Function, *operands: gf.Tensor) -> list[np.ndarray]:
    """The results, without a plan of the cache: those have tiles of the usual width."""
    graph = run_pipeline(gf.trace(function, *operands), PORTABLE)[-1].graph
    program = CudaProgram(build_schedule(graph, backend=CUDA))
    return [y.numpy() for y in program.run([DeviceArray.of(x.numpy()) for x in operands]) if y]


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles of four columns at most: every thread of a block is one of Python's."""
    monkeypatch.setattr(columns, "WIDEST", 4)


def statistics(x: gf.Tensor) -> tuple[gf.Tensor, ...]:
    """Several folds in one pass."""
    return x.sum(0), (x * x).sum(0), x.amax(0), x.amin(0)


def check_statistics(rows: int, width: int) -> int:
    """Compare; how many calls there are."""
    array = numbers(rows, width, seed=rows)
    x, wide = gf.tensor(array), array.astype(np.float64)
    assert len(tiled(statistics, x)) == (rows > columns.LANES and width > 1)
    expected = [wide.sum(0), (wide * wide).sum(0), wide.max(0), wide.min(0)]
    for got, want in zip(on_device(statistics, x), expected, strict=True):
        np.testing.assert_allclose(got, want, 1e-5, 1e-5 * rows**0.5)
    return len(kernels(statistics, x))


SHAPES = [
    (9, 2), (9, 3), (64, 7), (257, 8), (64, 31), (65, 32), (10, 33), (2, 5), (8, 40), (600, 1),
    (1031, 3), (2050, 5), (700, 4), (129, 33), (127, 33),
]  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.usefixtures("narrow")
def test_several_folds_of_columns_in_one_pass(shape: tuple[int, int]) -> None:
    rows, width = shape
    least = 2 * columns.LEAST_ROWS * columns.LANES * (2 if width == 2 else 1)
    assert check_statistics(*shape) == 1 + (rows >= least and width > 1)


@pytest.mark.parametrize("shape", [(40, 31), (40, 32), (129, 33), (300, 16)], ids=str)
def test_tiles_of_the_usual_width(shape: tuple[int, int]) -> None:
    check_statistics(*shape)


def test_a_column_has_the_threads_of_a_block_that_its_neighbours_leave() -> None:
    sizes = {n: tiled(lambda x: x.sum(0), gf.zeros(9, n))[0] for n in (2, 3, 5, 16, 32, 33, 500)}
    widths = {n: call.kernel.launch.least // 2 for n, call in sizes.items()}
    assert widths == {2: 2, 3: 4, 5: 8, 16: 16, 32: 32, 33: 32, 500: 32}
    assert [call.items for call in sizes.values()] == [1, 1, 1, 1, 1, 2, 16]


def test_parts_fill_a_gpu_and_follow_from_shapes() -> None:
    for rows, width in ((262_144, 64), (65_536, 512), (100_000, 4096), (4096, 8)):
        part, whole = kernels(lambda x: x.sum(0), gf.zeros(rows, width))
        assert part.items <= columns.BLOCKS
        assert part.items == columns.BLOCKS or width == 8
        assert whole.kernel.name.startswith(("row_", "col_"))
    assert not tiled(lambda x: x.sum(0), gf.zeros(16, 1 << 17))  # a thread for each is enough


def test_narrow_elements_are_read_more_rows_at_a_time() -> None:
    dtypes = {gf.float64: 4, gf.float32: 4, gf.bfloat16: 8, gf.bool: 16}
    for dtype, rows in dtypes.items():
        (call,) = tiled(lambda x: x.amax(0), gf.zeros(200, 33, dtype=dtype))
        assert f"in range({rows}):" in call.kernel.source
    x, y = (gf.zeros(40, 9, dtype=gf.float16) for _ in range(2))
    (call,) = tiled(lambda x, y: (x * y).sum(0), x, y)
    assert "in range(4):" in call.kernel.source


OTHERS: dict[str, tuple[Function, Callable[[np.ndarray], np.ndarray]]] = {
    "prod": (lambda x: (x * 0.1 + 1).prod(0), lambda x: (x * 0.1 + 1).prod(0)),
    "any": (lambda x: (x > 3.2).any(0), lambda x: (x > 3.2).any(0)),
    "all": (lambda x: (x < 3.2).all(0), lambda x: (x < 3.2).all(0)),
    "count": (lambda x: (x > 0).sum(0), lambda x: (x > 0).sum(0)),
    "mean": (lambda x: x.mean(0), lambda x: x.mean(0)),
    "logsumexp": (lambda x: x.logsumexp(0), lambda x: np.log(np.exp(x).sum(0))),
    "weighted": (lambda x: (x * x[0]).sum(0), lambda x: (x * x[0]).sum(0)),
}


@pytest.mark.parametrize("rows", [20, 333])
@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.usefixtures("narrow")
def test_other_folds(name: str, rows: int) -> None:
    function, reference = OTHERS[name]
    array = numbers(rows, 7, seed=rows)
    assert tiled(function, gf.tensor(array))
    (found,) = on_device(function, gf.tensor(array))
    np.testing.assert_allclose(found, reference(array.astype(np.float64)), 2e-5, 2e-5 * rows**0.5)


@pytest.mark.parametrize("rows", [70, 600])
@pytest.mark.parametrize(
    "dtype", [gf.float16, gf.bfloat16, gf.float64, gf.int32, gf.int64], ids=str
)
@pytest.mark.usefixtures("narrow")
def test_other_types(dtype: gf.dtype, rows: int) -> None:
    x = (gf.tensor(numbers(rows, 6, seed=rows)) * 3).to(dtype)
    assert tiled(lambda x: (x.sum(0), x.amax(0)), x)
    total, largest = on_device(lambda x: (x.sum(0), x.amax(0)), x)
    total, largest = total.astype(np.float64), largest.astype(np.float64)
    wide = x.double().numpy()
    rounding = {gf.float16: 1e-3, gf.bfloat16: 8e-3}.get(dtype, 1e-6)
    np.testing.assert_allclose(total, wide.sum(0), rounding, rounding)
    np.testing.assert_array_equal(largest, wide.max(0))


AXES: dict[str, Function] = {
    "channels of images": lambda x: x.sum((0, 1, 2)),
    "channels of the middle": lambda x: x[:, 1:-1, 2:-1].sum((0, 1, 2)),
    "channels of each image": lambda x: x.sum((1, 2)),
    "two kept axes": lambda x: x.sum((0, 2)),
    "some channels": lambda x: x[..., 1:12].sum((0, 1, 2)),
    "and what is stored on the way": lambda x: (x.relu(), x.relu().sum((0, 1, 2))),
    "two operands": lambda x: (x * x[:, :, :1]).sum((0, 1, 2)),
}


@pytest.mark.parametrize("shape", [(3, 5, 7, 13), (4, 12, 13, 6)], ids=str)
@pytest.mark.parametrize("name", AXES)
@pytest.mark.usefixtures("narrow")
def test_axes_of_images(name: str, shape: tuple[int, ...]) -> None:
    x = gf.tensor(numbers(*shape, seed=3))
    assert tiled(AXES[name], x)
    expected = AXES[name](x.double())
    expected = expected if isinstance(expected, tuple) else (expected,)
    for got, want in zip(on_device(AXES[name], x), expected, strict=True):
        np.testing.assert_allclose(got, want.numpy(), 1e-5, 1e-4)


def test_what_is_only_read_need_not_wait_for_stores() -> None:
    x, w = gf.zeros(40, 6), gf.zeros(6)

    def step(x: gf.Tensor) -> gf.Tensor:
        scaled = x * 2
        w.add_(scaled.sum(0))
        return scaled

    (call,) = tiled(step, x)
    assert "read(a, " in call.kernel.source and "read(out" not in call.kernel.source
    assert re.search(r"= out1?\[j\]", call.kernel.source)


@pytest.mark.parametrize("rows", [19, 300])
@pytest.mark.usefixtures("narrow")
def test_passes_over_columns(rows: int) -> None:
    """Rows of transposed operands: two folds one after the other, then what needs both."""

    def function(x: gf.Tensor, y: gf.Tensor) -> gf.Tensor:
        return F.softmax(x.t() + y.t(), 1)

    x, y = (gf.tensor(numbers(rows, 17, seed=seed)) for seed in (1, 2))
    names = [call.kernel.name.split("_")[0] for call in kernels(function, x, y)]
    assert names == (["tile"] if rows < 128 else ["tile", "row", "tile", "row", "ew"])
    (found,) = on_device(function, x, y)
    np.testing.assert_allclose(found, function(x.double(), y.double()).numpy(), 1e-5, 1e-7)


def variance(x: gf.Tensor) -> gf.Tensor:
    centred = x - x.mean(0)
    return (centred * centred).mean(0)


@pytest.mark.parametrize("rows", [40, 300])
@pytest.mark.parametrize("dtype", [gf.float32, gf.float64], ids=str)
@pytest.mark.usefixtures("narrow")
def test_columns_far_from_zero_take_a_second_pass(dtype: gf.dtype, rows: int) -> None:
    array = numbers(rows, 7, seed=rows) + np.array([0, 1, 1.9, 2.2, -30, 1e3, 0.1], np.float32)
    array[:, 6] = 3.7  # its mean is not exact
    x = gf.tensor(array).to(dtype)
    passes = tiled(variance, x)
    assert [call.kernel.source.count(" < needed0") for call in passes] == [0, 2]
    (found,) = on_device(variance, x)
    np.testing.assert_allclose(found, array.astype(np.float64).var(0), 1e-5, 1e-10)


@pytest.mark.usefixtures("narrow")
def test_columns_that_need_no_second_pass_are_not_read_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    x = gf.tensor(numbers(300, 7, seed=9) + np.array([0, 0, 0, 0, 0, 5, 0], np.float32))
    on_device(variance, x)
    reads: list[int] = []

    def read(memory: np.ndarray, place: int) -> object:
        if len(memory) >= 300 * 7:
            reads.append(place % 7)
        return plain.read(memory, place)

    for call in tiled(variance, x):
        module = next(m for name, m in sys.modules.items() if name.endswith(call.kernel.name))
        monkeypatch.setattr(module, "read", read)
    on_device(variance, x)
    assert [reads.count(column) for column in range(7)] == [300, 300, 300, 300, 300, 600, 300]


def test_any_number_of_rows() -> None:
    function = gf.compile(lambda x: (x.sum(0), x.amax(0), variance(x)), dynamic=True)
    for rows in (40, 1200, 3, 9, 257):
        array = numbers(rows, 6, seed=rows)
        total, largest, var = function(gf.tensor(array).cuda())
        np.testing.assert_allclose(total.cpu().numpy(), array.sum(0, np.float64), 1e-5, 1e-4)
        np.testing.assert_array_equal(largest.cpu().numpy(), array.max(0))
        np.testing.assert_allclose(var.cpu().numpy(), array.var(0, np.float64), 1e-5, 1e-6)


@pytest.mark.usefixtures("narrow")
def test_no_rows() -> None:
    (total,) = on_device(lambda x: x.sum(0), gf.zeros(0, 5))
    np.testing.assert_array_equal(total, np.zeros(5))


def trained(device: str) -> list[np.ndarray]:
    """Losses, parameters and statistics of steps with a batch norm and biases of channels."""
    gf.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 3, 3), nn.ReLU(),
        nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(3 * 36, 4),
    ).to(device)  # fmt: skip
    optimizer = gf.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

    x, y = gf.tensor(numbers(6, 3, 8, 8, seed=4)).to(device), gf.tensor([0, 1, 2, 3, 0, 1])
    compiled = gf.compile(training_step(model, optimizer))
    losses = [float(compiled(x, y.to(device))) for _ in range(3)]
    state = model.state_dict().values()
    return [np.array(losses), *[value.detach().cpu().numpy() for value in state]]


def test_steps_with_batch_norm_agree_with_the_cpu() -> None:
    for first, second, here in zip(*map(trained, ("cuda", "cuda", "cpu")), strict=True):
        np.testing.assert_array_equal(first, second)
        np.testing.assert_allclose(first, here, 1e-4, 1e-5)
