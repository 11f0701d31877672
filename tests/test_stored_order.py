"""Products written in the order of axes in which they are read, against NumPy."""

from __future__ import annotations

import numpy as np
import pytest

import graphflow as gf
from graphflow.codegen.stored_order import ordered
from graphflow.ir.types import TensorType, float32

# What is done with the product a @ b of [B, H, T, S] and [B, H, S, D], and whether a copy is left.
READERS = {
    "heads side by side": (lambda c: c.permute(0, 2, 1, 3).flatten(2), False),
    "heads before samples": (lambda c: c.permute(2, 1, 0, 3).flatten(1), False),
    "transposed": (lambda c: c.permute(0, 2, 3, 1).reshape(c.shape[0], -1), True),
    "columns first": (lambda c: c.permute(0, 3, 1, 2).reshape(c.shape[0], c.shape[3], -1), False),
    "both ways": (lambda c: c.permute(0, 2, 1, 3).flatten(2).sum(-1) * c.flatten(1).sum(), True),
    "also whole": (lambda c: c.permute(0, 2, 1, 3).flatten(2).sum(-1) * c.sum(), False),
}
SHAPES = [(2, 3, 5, 4, 7), (1, 3, 5, 4, 7), (2, 1, 8, 16, 8), (2, 3, 1, 9, 70), (2, 3, 6, 4, 1)]


@pytest.mark.parametrize("dtype", [gf.float32, gf.int32], ids=str)
@pytest.mark.parametrize("reader", READERS)
def test_a_product_is_written_where_its_reader_wants_it(reader: str, dtype: gf.dtype) -> None:
    read, copied = READERS[reader]
    rng = np.random.default_rng(1)
    for batch, heads, rows, depth, columns in SHAPES:
        a = rng.integers(-3, 4, (batch, heads, rows, depth)).astype(dtype.numpy)
        b = rng.integers(-3, 4, (batch, heads, depth, columns)).astype(dtype.numpy)
        program = gf.compile(lambda a, b: -read(gf.matmul(a, b)))
        found = program(gf.tensor(a), gf.tensor(b))
        np.testing.assert_allclose(found.numpy(), -read(gf.tensor(a @ b)).numpy(), rtol=1e-6)
        copies = [k for k in program.explain().kernels if "copy" in k.name]
        if min(batch, heads, rows, columns) > 1:
            assert bool(copies) is copied


def test_axes_in_another_order_fill_the_buffer() -> None:
    layout = ordered(0, TensorType(float32, (2, 3, 4, 5)), (0, 2, 1, 3))
    assert layout.strides == (60, 5, 15, 1)
    assert ordered(0, TensorType(float32, (2, 3)), ()).strides == (3, 1)
