"""Vectors laid end to end by one kernel, beside NumPy."""

import numpy as np
import pytest

from graphflow import flags
from graphflow.runtime import end_to_end
from graphflow.runtime.cache import load
from graphflow.runtime.end_to_end import ADD, LAY, add_scaled, lay_end_to_end

SHAPES = [(1,), (33, 70), (7, 3, 5), (0,), (1029,)]


def vectors(seed=3):
    print("seed", seed)
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape).astype(np.float32) for shape in SHAPES]


def laid(arrays, scale):
    load([LAY])
    out = np.full(sum(a.size for a in arrays), 7, np.float32)
    return lay_end_to_end(arrays, scale, out), out


@pytest.mark.skipif(flags.DISABLE_JIT.value, reason="kernels are Python functions")
@pytest.mark.parametrize("value", [None, 3e38, 1e-42, -0.0, np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, 1111, 2309])
def test_the_bits_are_those_of_numpy_and_what_is_not_finite_is_seen(value, place):
    arrays = vectors()
    if value is not None:
        arrays[1].reshape(-1)[place] = value
    finite, out = laid(arrays, 0.25)
    flat = np.concatenate([a.reshape(-1) for a in arrays])
    np.testing.assert_array_equal(out, flat * np.float32(0.25))
    assert finite is bool(np.isfinite(flat).all())


def test_what_the_kernel_cannot_lay_is_left_alone():
    first, second, *_ = vectors()
    for arrays in ([first, second.T], [first, second.astype(np.float64)]):
        finite, out = laid(arrays, 1.0)
        assert finite is None and (out == 7).all()


def test_programs_bring_the_kernel_once_it_is_expected(monkeypatch):
    monkeypatch.setattr(end_to_end._Wanted, "expected", False)
    assert end_to_end.companions() == []
    end_to_end.expect()
    assert end_to_end.companions() == [LAY, ADD]


@pytest.mark.skipif(flags.DISABLE_JIT.value, reason="kernels are Python functions")
@pytest.mark.parametrize("value", [None, 3e38, -0.0, np.nan, np.inf])
@pytest.mark.parametrize("which", [0, 1])
def test_sums_of_two_are_numpys_and_what_was_not_finite_is_seen(value, which):
    load([ADD])
    pair = [a.reshape(-1)[:2000] for a in (np.concatenate([v.reshape(-1) for v in vectors(seed)])
                                           for seed in (3, 4))]  # fmt: skip
    if value is not None:
        pair[which][1234] = value
    out = np.empty(2000, np.float32)
    finite = add_scaled(*pair, 0.25, out)
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(out, (pair[0] + pair[1]) * np.float32(0.25))
    assert finite is bool(np.isfinite(pair).all())
    assert add_scaled(*(a.astype(np.float64) for a in pair), 0.25, out) is None


@pytest.mark.skipif(flags.DISABLE_JIT.value, reason="kernels are Python functions")
def test_what_lies_there_already_is_looked_at_and_left_alone():
    load([LAY])
    flat = np.arange(300, dtype=np.float32)
    parts = [flat[:100], flat[100:]]
    assert lay_end_to_end(parts, 1.0, flat) is True
    assert flat.tolist() == list(range(300))
    flat[250] = np.nan
    assert lay_end_to_end(parts, 1.0, flat) is False
