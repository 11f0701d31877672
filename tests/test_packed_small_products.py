"""Products of 8-bit rows by packed weights: exact sums, whatever is left over of a tile."""

import numpy as np
import pytest

import graphflow as gf
from graphflow import nn
from graphflow import quantization as Q


@pytest.mark.parametrize("rows, into, out", [(48, 2, 2), (53, 33, 17), (50, 64, 16), (4, 401, 250)])
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
    assert any(getattr(s, "kernel", None) and "mm_pairs" in s.kernel.name for s in steps)
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
