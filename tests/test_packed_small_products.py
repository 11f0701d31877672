"""Products of 8-bit rows by packed weights: exact sums, whatever is left over of a tile."""

import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

import graphflow as gf
from graphflow import nn
from graphflow import quantization as Q
from graphflow.codegen.contraction import micro_kernels
from graphflow.codegen.contraction.tiling import neighbours, pairs_tile
from graphflow.codegen.plain import Pointer
from graphflow.codegen.target import chosen_target

SEED = 7
PACKED = "mm_quads_i8" if neighbours(chosen_target(), "i8") == 4 else "mm_pairs_i8"


@pytest.mark.parametrize(
    "rows, into, out", [(48, 2, 2), (53, 33, 17), (50, 64, 16), (4, 401, 250), (51, 70, 40)]
)
def test_linear_is_the_product_of_integers(rows: int, into: int, out: int) -> None:
    """Odd depths and parts of tiles, beside sums of NumPy's 64-bit integers."""
    rng = np.random.default_rng(rows)
    weight = rng.integers(-128, 128, (out, into)).astype(np.int8)
    x = rng.integers(-128, 128, (rows, into)).astype(np.int8)
    x[0], weight[0] = -128, -128  # the greatest products
    layer = nn.Module()
    layer.register_buffer("weight", gf.tensor(weight))

    @gf.compile
    def product(x: gf.Tensor) -> gf.Tensor:
        return gf.dispatch.apply("matmul", x, layer.weight.t(), dtype=gf.int32)

    steps = gf.compile(gf.trace(product, gf.TensorSpec(x.shape, gf.int8))).schedule.steps
    assert any(getattr(s, "kernel", None) and PACKED in s.kernel.name for s in steps)
    expected = x.astype(np.int64) @ weight.T.astype(np.int64)
    assert np.array_equal(product(gf.tensor(x)).numpy(), expected)
    layer.weight.copy_(gf.tensor(weight[::-1].copy()))  # panels are packed again
    assert np.array_equal(product(gf.tensor(x)).numpy(), expected[:, ::-1])


@pytest.mark.parametrize("channels, features", [(3, 20), (32, 16)])
def test_convolution_compiled_is_the_eager_one(channels: int, features: int) -> None:
    """The same integers, with an odd run of depth and with channels that lie together."""
    gf.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(channels, features, 3, padding=1), nn.ReLU(),
                          nn.Conv2d(features, 24, 3, stride=2, padding=1)).eval()  # fmt: skip
    model.qconfig = Q.get_default_qconfig("x86")
    prepared = Q.prepare(model)
    x = gf.randn(2, channels, 7, 9)
    prepared(x)
    made = Q.convert(prepared)
    with gf.no_grad():
        expected = made(x).numpy()
        found = gf.compile(lambda x: made(x))(x).numpy()
    # The two may round a number that lies halfway to neighbouring integers.
    assert np.abs(found - expected).max() <= 0.02 * np.abs(expected).max()


SETTINGS = {"avx2,fma": "mm_pairs_i8_6x16", "sse4.2": "mm_pairs_i8_6x8"}


@pytest.mark.parametrize("features", SETTINGS)
def test_processors_without_products_of_bytes(features: str, tmp_path: pathlib.Path) -> None:
    """The kernels for older processors, whatever this one has, give the same integers."""
    program = f"""
import numpy as np
import graphflow as gf
from graphflow import nn
rng = np.random.default_rng({SEED})
x, w = (rng.integers(-128, 128, shape).astype(np.int8) for shape in ((50, 39), (18, 39)))
layer = nn.Module()
layer.register_buffer("weight", gf.tensor(w))
names = set()
for rows in (3, 50):
    f = lambda x: gf.dispatch.apply("matmul", x, layer.weight.t(), dtype=gf.int32)
    program = gf.compile(gf.trace(f, gf.TensorSpec((rows, 39), gf.int8)))
    names |= {{s.kernel.name for s in program.schedule.steps if hasattr(s, "kernel")}}
    found = program(gf.tensor(x[:rows])).numpy()
    assert np.array_equal(found, x[:rows].astype(np.int64) @ w.T.astype(np.int64))
print(*sorted(names))
"""
    environment = {**os.environ, "GRAPHFLOW_CPU_FEATURES": features,
                   "GRAPHFLOW_CACHE_DIR": str(tmp_path)}  # fmt: skip
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr
    assert SETTINGS[features] in done.stdout and "mm_dots_i8" in done.stdout


def test_what_kernels_call_in_plain_python() -> None:
    """Rows and panels as VNNI wants them give the product, by what the vocabulary says."""
    rng = np.random.default_rng(SEED)
    width = pairs_tile(chosen_target())[1]
    a, b = (rng.integers(-128, 128, shape).astype(np.int8) for shape in ((2, 7), (7, width)))
    padded = np.zeros((8, width), np.int8)
    padded[:7] = b
    panel = np.ascontiguousarray(padded.reshape(2, 4, width).swapaxes(1, 2)) ^ np.int8(-128)
    rows, c = np.zeros(2 * 12, np.int8), np.zeros((2, width), np.int32)
    steps, targets = np.zeros(1, np.int64), np.array([0, width])
    left, right, made, sums, begins, goals = (
        Pointer(kind, array.ctypes.data)
        for kind, array in (
            ("i8", a), ("i8", panel), ("i8", rows), ("i32", c), ("i64", steps), ("i64", targets),
        )
    )  # fmt: skip
    for row in range(2):
        micro_kernels.gather(left + row * 7, begins, 1, 7, made + row * 12)
    micro_kernels.quads(2, 2, right, made, 8, sums, goals, width)
    assert np.array_equal(c, a.astype(np.int64) @ b.astype(np.int64))
