"""References of NumPy that choose how to go through memory: the numbers are those of one way."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from graphflow.ir.op import lookup
from graphflow.ir.ops.pieces import PIECE_BYTES, in_pieces


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", ["erf", "phi"])
def test_long_arrays_in_pieces_have_the_same_bits(name: str, dtype: type) -> None:
    step = PIECE_BYTES // np.dtype(dtype).itemsize
    rng = np.random.default_rng(11)
    reference = lookup(name).reference
    for count in (step, step + 1, 3 * step - 1):
        x = 4 * rng.standard_normal(count).astype(dtype)
        one_by_one = np.concatenate([reference(part) for part in np.array_split(x, 7)])
        assert np.array_equal(reference(x), one_by_one), count
    x = rng.standard_normal((5, 3 * step)).astype(dtype)
    assert np.array_equal(reference(x[:, ::2]), reference(np.ascontiguousarray(x[:, ::2])))
    assert reference(x).shape == x.shape


def test_pieces_are_of_a_bounded_size() -> None:
    sizes = []
    double = in_pieces(lambda x: (sizes.append(x.nbytes), 2 * x)[1])
    x = np.arange(3 * PIECE_BYTES // 8 + 5, dtype=np.float64)
    assert np.array_equal(double(x), 2 * x)
    assert max(sizes) == PIECE_BYTES and sum(sizes) == x.nbytes
    assert double(np.empty((3, 0))).shape == (3, 0)


LABELS = (
    ((0, 1, 2, 3), (4, 1, 3), (0, 4, 2)),
    ((0, 2, 1), (3, 1), (3, 0, 2)),
    ((0, 1), (1, 0), ()),
)


@pytest.mark.parametrize("labels", LABELS)
def test_a_contraction_of_operands_in_any_order_of_memory(
    labels: tuple[tuple[int, ...], ...],
) -> None:
    left, right, out = labels
    extents = (3, 4, 5, 6, 7)
    rng = np.random.default_rng(12)
    a, b = (
        rng.integers(-4, 5, [extents[x] for x in ls]).astype(np.float32) for ls in (left, right)
    )
    wanted = np.einsum(a, left, b, right, out)  # sums of small integers are exact
    for order in permutations(range(a.ndim)):
        for other in permutations(range(b.ndim)):
            x = np.ascontiguousarray(a.transpose(order)).transpose(np.argsort(order))
            y = np.ascontiguousarray(b.transpose(other)).transpose(np.argsort(other))
            found = lookup("contract").reference(x, y, left=left, right=right, out=out)
            assert found.flags.c_contiguous and np.array_equal(found, wanted), (order, other)


def test_a_contraction_of_windows_that_overlap() -> None:
    rng = np.random.default_rng(13)
    x = rng.integers(-4, 5, (2, 3, 6, 7)).astype(np.float32)
    w = rng.integers(-4, 5, (5, 3, 3, 2)).astype(np.float32)
    windows = np.lib.stride_tricks.sliding_window_view(x, (3, 2), (2, 3))
    labels = {"left": (0, 3, 4, 5, 6, 7), "right": (2, 3, 6, 7), "out": (0, 2, 4, 5)}
    found = lookup("contract").reference(windows, w, **labels)
    assert np.array_equal(found, np.einsum("ncijkl,ockl->noij", windows, w))
