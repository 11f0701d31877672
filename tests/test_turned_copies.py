"""Copies that turn their axes, with zeros around and without: against NumPy, element by element."""

from typing import Any

import numpy as np
import pytest

import graphflow as gf

CASES = {
    "images, channels last": ((3, 40, 19, 18), (0, 2, 3, 1), ((0, 0), (2, 1), (3, 0), (0, 0))),
    "images, channels first": ((2, 21, 17, 70), (0, 3, 1, 2), ((0, 0), (0, 0), (1, 1), (0, 4))),
    "zeros among images": ((2, 33, 16, 20), (0, 2, 3, 1), ((1, 2), (0, 0), (0, 0), (0, 0))),
    "zeros after each channel": ((1, 16, 4, 16), (0, 2, 3, 1), ((0, 0), (0, 0), (0, 0), (5, 60))),
    "a matrix": ((130, 65), (1, 0), ((1, 0), (0, 1))),
    "heads": ((2, 30, 3, 64), (0, 2, 3, 1), ((0, 0), (0, 0), (0, 2), (2, 0))),
}


def kernels(step: Any) -> str:
    """The names of a program's kernels."""
    return " ".join(call.kernel.name for call in step.programs[-1].schedule.steps)


@pytest.mark.parametrize(
    "dtype, threads",
    [
        ("float32", 1),
        *((d, 2) for d in ("float32", "float64", "int32", "int64", "float16", "bool")),
    ],
)
@pytest.mark.parametrize("name", CASES)
def test_turned_copies(name: str, dtype: str, threads: int) -> None:
    shape, order, zeros = CASES[name]
    x = np.random.default_rng(7).integers(-99, 99, shape).astype(dtype)
    pads = [side for pair in reversed(zeros) for side in pair]

    def step(x: Any) -> Any:
        return gf.nn.functional.pad(x.permute(order), pads)

    before = gf.get_num_threads()
    gf.set_num_threads(threads)
    try:
        compiled = gf.compile(step)
        found = compiled(gf.tensor(x)).numpy()
    finally:
        gf.set_num_threads(before)
    np.testing.assert_array_equal(found, np.pad(x.transpose(order), zeros))
    assert ("copy_turned" in kernels(compiled)) == (np.dtype(dtype).itemsize in (4, 8))


def test_what_else_than_zero_is_around_or_reads_in_order_is_a_loop() -> None:
    x = gf.randn(3, 40, 20)
    ones = gf.compile(lambda x: gf.nn.functional.pad(x.transpose(1, 2), (1, 1), value=1.0))
    assert ones(x)[0, :, 0].tolist() == [1.0] * 20
    plain = gf.compile(lambda x: gf.nn.functional.pad(x, (1, 1)))
    plain(x)
    few = gf.compile(lambda x: gf.nn.functional.pad(x[:, :8].transpose(1, 2), (1, 1)))
    few(x)
    assert not any("copy_turned" in kernels(one) for one in (ones, plain, few))
