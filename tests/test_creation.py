"""Making tensors: ranges, fills, conversions, memory shared with others, limits of dtypes.

What dtypes and values must be is PyTorch 2.13's answer, written down.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphflow as gf
from graphflow.errors import DTypeError, GraphFlowError, ShapeError

RANGES: list[tuple[tuple[Any, ...], list[float], gf.dtype]] = [
    ((5,), [0, 1, 2, 3, 4], gf.int64),
    ((2, 5), [2, 3, 4], gf.int64),
    ((5, 0, -2), [5, 3, 1], gf.int64),
    ((0.5, 2), [0.5, 1.5], gf.float32),
    ((0, 1, 0.3), [0, 0.3, 0.6, 0.9], gf.float32),
    ((3, 3), [], gf.int64),
    ((0, 5, 2), [0, 2, 4], gf.int64),
]


@pytest.mark.parametrize(("arguments", "values", "dtype"), RANGES)
def test_arange(arguments: Any, values: list[float], dtype: gf.dtype) -> None:
    made = gf.arange(*arguments)
    assert made.dtype is dtype
    np.testing.assert_allclose(made.numpy(), values, 1e-6)
    tensors = [gf.tensor(a) for a in arguments]
    np.testing.assert_allclose(gf.arange(*tensors).numpy(), made.numpy(), 1e-6)
    half = gf.arange(*arguments, dtype=gf.float16, requires_grad=True)
    assert half.dtype is gf.float16 and half.requires_grad


def test_even_spaces() -> None:
    for steps in (0, 1, 2, 7):
        expected = np.linspace(-1.5, 2, steps)
        np.testing.assert_allclose(gf.linspace(-1.5, 2, steps).numpy(), expected, 1e-6)
        made = gf.logspace(gf.tensor(-1.5), 2, steps, base=2.0, dtype=gf.float64)
        np.testing.assert_allclose(made.numpy(), 2.0**expected, 1e-12)
    assert gf.linspace(0, 10, 5, dtype=gf.int64).tolist() == [0, 2, 5, 7, 10]
    assert gf.linspace(0, 0.7, 8)[-1].item() == np.float32(0.7)  # the last value is exact
    assert gf.compile(lambda: gf.linspace(0, 1, 5))().tolist() == [0, 0.25, 0.5, 0.75, 1]


def test_fills() -> None:
    x = gf.tensor([[1, 2, 3]], dtype=gf.int32)
    assert gf.full((2,), 3).dtype is gf.int64 and gf.full((2,), True).dtype is gf.bool
    assert gf.full((2,), 1.5, dtype=gf.float64).tolist() == [1.5, 1.5]
    assert gf.full((2,), gf.tensor(2.5)).tolist() == [2.5, 2.5]
    assert gf.full_like(x, 7).dtype is gf.int32 and gf.full_like(x, 7).shape == (1, 3)
    assert gf.zeros_like(x, dtype=gf.float64, requires_grad=True).requires_grad
    assert x.new_zeros(2, 2).dtype is gf.int32 and x.new_ones((2,), dtype=gf.bool).dtype is gf.bool
    assert x.new_full((1,), 4).tolist() == [4] and x.new_tensor([1.7]).tolist() == [1]
    assert x.new_empty(3).shape == (3,) and gf.empty(size=(2, 1)).shape == (2, 1)
    assert gf.eye(2, 3).tolist() == [[1, 0, 0], [0, 1, 0]] and gf.eye(0).shape == (0, 0)
    assert gf.scalar_tensor(2, dtype=gf.int64).item() == 2
    placed = gf.ones(2, device="cpu", layout=gf.strided, pin_memory=False)
    assert gf.ones_like(placed, memory_format=gf.preserve_format).tolist() == [1, 1]


BAD: list[tuple[Any, type[Exception], str]] = [
    (lambda: gf.arange(0, 5, 0), GraphFlowError, "step other than 0"),
    (lambda: gf.arange(0, 5, -1), GraphFlowError, "does not lead"),
    (lambda: gf.arange(0, float("inf")), GraphFlowError, "finite"),
    (lambda: gf.arange("3"), TypeError, "numbers"),
    (lambda: gf.linspace(0, 1, -1), GraphFlowError, "steps >= 0"),
    (lambda: gf.linspace(gf.ones(2), 1, 3), GraphFlowError, "0-d"),
    (lambda: gf.linspace(0, 1, 2.5), TypeError, "whole number"),
    (lambda: gf.eye(-1), ShapeError, "negative"),
    (lambda: gf.ones(2, colour="red"), TypeError, "unexpected keyword argument 'colour'"),
    (lambda: gf.ones(2, dtype="float"), TypeError, "dtype"),
    (lambda: gf.ones(2, device="cuda"), GraphFlowError, "not available"),
    (lambda: gf.ones(2, layout=gf.channels_last), GraphFlowError, "strided"),
    (lambda: gf.zeros_like([1.0]), TypeError, "must be a tensor"),
    (lambda: gf.finfo(gf.int32), DTypeError, "floating"),
    (lambda: gf.iinfo(gf.float32), DTypeError, "integer"),
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(BAD)))
def test_one_clear_error(number: int) -> None:
    call, error, message = BAD[number]
    with pytest.raises(error, match=message):
        call()


def test_memory_is_shared_both_ways() -> None:
    array = np.arange(6.0).reshape(2, 3)
    x = gf.from_numpy(array)
    x[0, 0] = 7
    assert array[0, 0] == 7 and x.numpy() is not None and np.shares_memory(x.numpy(), array)
    lent = np.from_dlpack(x)
    lent[1, 2] = 9
    assert x[1, 2].item() == 9 and np.shares_memory(lent, array)
    back = gf.from_dlpack(array)
    back.zero_()
    assert not array.any() and x.__dlpack_device__() == (1, 0)
    assert np.asarray(x).dtype == np.float64 and gf.asarray(array).data_ptr() == x.data_ptr()
    copied = gf.asarray(array, copy=True)
    copied.fill_(1)
    assert not array.any()
    assert gf.frombuffer(bytearray(b"\x01\x02\x03"), dtype=gf.uint8, offset=1).tolist() == [2, 3]
    with pytest.raises(GraphFlowError, match="requires grad"):
        gf.ones(2, requires_grad=True).__dlpack__()


def test_limits_of_dtypes() -> None:
    byte, small, wide = gf.iinfo(gf.uint8), gf.iinfo(gf.int8), gf.iinfo(gf.int64)
    assert (byte.min, byte.max, small.min, small.max) == (0, 255, -128, 127)
    assert (wide.max, wide.bits) == (2**63 - 1, 64)
    single, brain = gf.finfo(gf.float32), gf.finfo(gf.bfloat16)
    assert (single.eps, single.bits, single.tiny) == (2.0**-23, 32, 2.0**-126)
    assert (brain.eps, brain.max) == (2.0**-7, 3.3895313892515355e38)
    assert gf.finfo().dtype == "float32" and "max=127" in repr(small)


CASTS = {  # to bool, uint8, int8, int64, float16, float64, complex64
    gf.bool: "1111111", gf.uint8: "0111111", gf.int8: "0111111", gf.int64: "0111111",
    gf.float32: "0000111", gf.complex64: "0000001",
}  # fmt: skip


def test_which_conversions_keep_the_kind() -> None:
    targets = [gf.bool, gf.uint8, gf.int8, gf.int64, gf.float16, gf.float64, gf.complex64]
    for source, answers in CASTS.items():
        found = "".join(str(int(gf.can_cast(source, target))) for target in targets)
        assert found == answers, source
    assert gf.promote_types(gf.uint8, gf.int8) is gf.int16
    assert gf.result_type(gf.ones(1, dtype=gf.float16), 2.5) is gf.float16
    assert gf.result_type(gf.ones(1, dtype=gf.int32), gf.tensor(2.5)) is gf.float32


def test_conversions() -> None:
    x = gf.tensor([0.0, 1.5, -2.5])
    for name, dtype, values in (
        ("bool", gf.bool, [False, True, True]), ("int", gf.int32, [0, 1, -2]),
        ("long", gf.int64, [0, 1, -2]), ("short", gf.int16, [0, 1, -2]),
        ("char", gf.int8, [0, 1, -2]), ("double", gf.float64, [0, 1.5, -2.5]),
        ("half", gf.float16, [0, 1.5, -2.5]), ("bfloat16", gf.bfloat16, [0, 1.5, -2.5]),
    ):  # fmt: skip
        made = getattr(x, name)(memory_format=gf.preserve_format)
        assert made.dtype is dtype and made.tolist() == values
    assert x.to(gf.float32) is x and x.to("cpu") is x and x.float() is x
    assert x.to("cpu", gf.float32, False, True) is not x and x.to(x, copy=True) is not x
    assert x.to(gf.ones(1).long()).dtype is gf.int64
    assert x.type() == "graphflow.FloatTensor" and x.type("torch.LongTensor").dtype is gf.int64
    assert x.type(gf.int8).dtype is gf.int8 and x.type_as(gf.ones(1).bool()).dtype is gf.bool
    with pytest.raises(DTypeError, match="no tensor type"):
        x.type("torch.WholeTensor")
