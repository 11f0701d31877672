"""What a tensor says about itself, and Python's protocols on it."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

import graphflow as gf
from graphflow import nn
from graphflow.errors import GraphFlowError
from graphflow.testing import assert_close


def test_sizes_and_memory() -> None:
    x = gf.arange(24).reshape(2, 3, 4)
    part = x[1, :, 1]
    assert (x.dim(), x.ndimension(), x.ndim, x.numel(), x.nelement()) == (3, 3, 3, 24, 24)
    assert (x.element_size(), x.itemsize, x.nbytes) == (8, 8, 192)
    assert x.stride() == (12, 4, 1) and part.stride() == (4,) and part.stride(0) == 4
    assert part.storage_offset() == 13 and part.data_ptr() == x.data_ptr() + 13 * 8
    assert x.is_contiguous() and not part.is_contiguous() and part.contiguous().is_contiguous()
    assert x.is_set_to(x.view(2, 3, 4)) and not x.is_set_to(part)
    image = gf.ones(2, 3, 4, 5)
    assert not image.is_contiguous(memory_format=gf.channels_last)
    last = gf.from_numpy(np.ones((2, 4, 5, 3)).transpose(0, 3, 1, 2))
    assert last.is_contiguous(memory_format=gf.channels_last) and not last.is_contiguous()
    compiled = gf.compile(lambda x: x * x.stride(0) + x.element_size())
    np.testing.assert_array_equal(compiled(x).numpy(), x.numpy() * 12 + 8)


def test_shapes_are_sizes() -> None:
    shape = gf.ones(2, 3, 4).shape
    assert isinstance(shape, tuple) and shape == (2, 3, 4) and shape.numel() == 24
    assert repr(shape[1:]) == "graphflow.Size([3, 4])" and shape[-1] == 4
    assert isinstance(shape + (5,), gf.Size) and gf.ones(2, 3).size(-1) == 3


def test_shapes_that_a_compiled_function_returns_are_sizes() -> None:
    for dynamic in (None, {"x": {0: "rows"}}):
        shapes = gf.compile(lambda x: (x.shape, (x * 2)[1:].size()), dynamic=dynamic)
        for rows in (3, 5):
            whole, part = shapes(gf.ones(rows, 4))
            assert isinstance(whole, gf.Size) and whole == (rows, 4)
            assert isinstance(part, gf.Size) and part.numel() == (rows - 1) * 4
            assert all(type(extent) is int for extent in (*whole, *part))


def test_reversed_turns_every_dimension() -> None:
    x = gf.arange(6).reshape(2, 3)
    for turn in (reversed, gf.compile(lambda x: reversed(x))):
        assert turn(x).tolist() == [[5, 4, 3], [2, 1, 0]]


def test_kinds_and_places() -> None:
    x = gf.ones(2)
    assert x.is_cpu and not x.is_cuda and not x.is_sparse and not x.is_pinned()
    assert x.layout is gf.strided and x.get_device() == -1 and x.pin_memory() is x
    assert x.cpu() is x and str(x.device) == "cpu"
    assert gf.is_floating_point(x) and not gf.is_complex(x) and x.is_signed()
    assert gf.is_tensor(x) and gf.is_nonzero(gf.tensor([2.0])) and not gf.tensor(0).is_nonzero()
    assert not gf.tensor([1], dtype=gf.uint8).is_signed() and x.is_same_size(gf.zeros(2))
    with pytest.raises(GraphFlowError, match="not available"):
        x.cuda()
    with pytest.raises(GraphFlowError, match="ambiguous"):
        gf.ones(2).is_nonzero()


def test_python_sees_numbers() -> None:
    x = gf.tensor([[2.5]])
    assert (bool(x), int(x), float(x), complex(x), x.item()) == (True, 2, 2.5, 2.5 + 0j, 2.5)
    assert [1, 2, 3][gf.tensor(1)] == 2 and round(float(x)) == 2
    assert 2.5 in x and 3 not in x and gf.tensor(2.5) in x
    assert len(gf.ones(3, 2)) == 3 and [r.tolist() for r in gf.arange(2)] == [0, 1]
    assert (+x) is x and f"{gf.tensor(1.25):.1f}" == "1.2"
    for strange in (gf.ones(2), gf.ones(0)):
        with pytest.raises(GraphFlowError):
            float(strange)
    with pytest.raises(TypeError, match="integer"):
        [1, 2][gf.tensor(1.0)]


def test_reflected_and_in_place_operators() -> None:
    x = gf.tensor([1, 2, 3])
    assert (10 - x).tolist() == [9, 8, 7] and (6 / x).tolist() == [6, 3, 2]
    assert (7 // x).tolist() == [7, 3, 2] and (7 % x).tolist() == [0, 1, 1]
    assert (2**x).tolist() == [2, 4, 8] and (1 << x).tolist() == [2, 4, 8]
    assert (16 >> x).tolist() == [8, 4, 2] and (6 & x).tolist() == [0, 2, 2]
    assert (6 | x).tolist() == [7, 6, 7] and (6 ^ x).tolist() == [7, 4, 5]
    assert x.__rdiv__(6).tolist() == [6, 3, 2] and x.__rpow__(2).tolist() == [2, 4, 8]
    same = x
    x += 1
    x *= 2
    x -= 1
    x <<= 2
    x >>= 1
    x //= 3
    x %= 4
    x ^= 1
    x |= 8
    x &= 10
    assert same is x and x.tolist() == [10, 10, 8]


def test_elements_replaced_by_python_functions() -> None:
    x = gf.tensor([[1.0, 2.0], [3.0, 4.0]])
    assert x.apply_(lambda v: v * 10) is x and x.tolist() == [[10, 20], [30, 40]]
    x.map_(gf.tensor([1.0, 2.0]), lambda a, b: a + b)
    assert x.tolist() == [[11, 22], [31, 42]]
    with pytest.raises(GraphFlowError, match="require grad"):
        gf.ones(2, requires_grad=True).apply_(abs)


def test_history() -> None:
    x = gf.ones(2)
    leaf = gf.autograd.Variable(x, requires_grad=True)
    assert leaf.requires_grad and not x.requires_grad and leaf.data_ptr() == x.data_ptr()
    y = leaf * 2
    assert not y.retains_grad
    y.retain_grad()
    y.sum().backward()
    assert y.retains_grad and y.grad.tolist() == [1, 1] and leaf.grad.tolist() == [2, 2]
    assert y.detach().is_leaf and y.data.requires_grad is False
    filled = gf.fill(leaf, gf.tensor(3.0, requires_grad=True))
    assert filled.requires_grad and filled.tolist() == [3, 3]


def test_methods_imported_late_are_on_the_class_too() -> None:
    script = (
        "import graphflow as gf\n"
        "assert gf.Tensor.acos_(gf.ones(1)).item() == 0\n"
        "assert not hasattr(gf.Tensor, 'nothing_of_that_name')\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_what_no_tensor_is_and_older_ways_to_make_one() -> None:
    x = gf.ones(2, dtype=gf.float64)
    for name in ("is_nested", "is_mkldnn", "is_sparse_csr", "is_xla", "is_sparse", "is_xpu"):
        assert getattr(x, name) is False
    assert x.output_nr == 0 and x.to_dense() is x and x.to_dense(gf.float32).dtype is gf.float32
    assert x.new(2, 3).shape == (2, 3) and x.new([1, 2]).tolist() == [1.0, 2.0]
    assert x.new().shape == (0,) and x.new(2).dtype is gf.float64


def test_numpys_functions_of_a_tensor_give_tensors() -> None:
    x = gf.tensor([1.0, 4.0])
    for made, expected, dtype in (
        (np.sqrt(x), [1, 2], gf.float32), (np.add(x, np.ones(2)), [2, 5], gf.float64),
        (np.power(gf.tensor([2, 3]), 2), [4, 9], gf.int64), (np.greater(x, 2), [0, 1], gf.uint8),
        (np.add.reduce(x), 5, gf.float32), (np.argmax(x), 1, gf.int64),
        (np.cumsum(x), [1, 5], gf.float32), (np.float64(2) * x, [2, 8], gf.float32),
    ):  # fmt: skip
        assert isinstance(made, gf.Tensor) and made.dtype is dtype and made.tolist() == expected
    fraction, whole = np.modf(x + 0.5)
    assert fraction.tolist() == [0.5, 0.5] and whole.tolist() == [1, 4]
    assert isinstance(np.concatenate([x, x]), np.ndarray)
    with pytest.raises(GraphFlowError, match="requires grad"):
        np.exp(x.requires_grad_())
    with pytest.raises(GraphFlowError, match="test_tensor_surface"):
        gf.compile(lambda x: np.exp(x))(gf.ones(2))


def test_tensors_take_attributes_of_ones_own() -> None:
    weight = nn.Parameter(gf.ones(2))
    weight._no_weight_decay = True
    given = gf.ones(2)
    given.tags = {"kind": ["bias"]}
    assert [p for p in (weight, nn.Parameter(given)) if hasattr(p, "_no_weight_decay")] == [weight]
    for twin in (copy.deepcopy(given), pickle.loads(pickle.dumps(given))):
        assert twin.tags == given.tags and twin.tags is not given.tags
        np.testing.assert_array_equal(twin.numpy(), given.numpy())
    assert copy.copy(weight)._no_weight_decay
    assert not hasattr(copy.deepcopy(weight), "_no_weight_decay")  # as in PyTorch
    assert not hasattr(given.detach(), "tags")


def test_attributes_stay_when_a_lazy_parameter_gets_its_shape() -> None:
    layer = nn.LazyLinear(3)
    layer.weight.lr_scale = 0.5
    layer(gf.ones(2, 4))
    assert layer.weight.lr_scale == 0.5 and layer.weight.shape == (3, 4)


def test_a_tensor_takes_other_extents_over_its_memory() -> None:
    x = gf.arange(12.0).reshape(3, 4)
    y = x.clone()
    part = y[1:]
    assert part.resize_(2, 2) is part and part.tolist() == [[4, 5], [6, 7]]
    part[0, 0] = -1
    assert y[1, 0] == -1
    more = x.clone()
    more.resize_((5, 3))
    assert more.shape == (5, 3) and more.flatten()[:12].tolist() == list(range(12))
    assert more.flatten()[12:].tolist() == [0] * 3
    turned = x.clone().t_().resize_(12)
    assert turned.tolist() == list(range(12))
    assert gf.zeros(0).resize_as_(x).copy_(x).tolist() == x.tolist()
    assert x.clone().as_strided_((2, 2), (1, 2), 1).tolist() == [[1, 3], [2, 4]]
    with pytest.raises(gf.GraphFlowError, match=r"resize_ of a tensor that requires grad.*detach"):
        gf.ones(2, requires_grad=True).resize_(3)
    with pytest.raises(gf.GraphFlowError, match="a size is negative"):
        x.clone().resize_(-1)


def test_a_tensor_takes_the_memory_of_another() -> None:
    x = gf.arange(12.0).reshape(3, 4)
    y = gf.zeros(0)
    y.set_(x)
    y[0, 0] = 9
    assert x[0, 0] == 9 and y.shape == (3, 4)
    memory = x[1:].untyped_storage()
    assert gf.zeros(0).set_(memory, 2, (2, 3), (4, 1)).tolist() == [[2, 3, 4], [6, 7, 8]]
    assert gf.zeros(0).set_(memory).tolist() == x.flatten().tolist()
    assert gf.zeros(3).set_(x, 1, (2, 2)).tolist() == [[1, 2], [3, 4]]
    assert gf.zeros(3).set_().shape == (0,)
    leaf = gf.zeros(3, requires_grad=True)
    with gf.no_grad():
        leaf.set_(gf.ones(3))
    assert leaf.requires_grad and leaf.tolist() == [1, 1, 1]
    with pytest.raises(gf.DTypeError, match="the source is int64, the tensor float32"):
        gf.zeros(2).set_(gf.zeros(2, dtype=gf.int64))


def test_the_memory_of_a_tensor_as_a_row_of_elements() -> None:
    x = gf.arange(6.0).reshape(2, 3)
    row = x[1:].storage()
    assert len(row) == row.size() == 6 and list(row) == row.tolist() == [0, 1, 2, 3, 4, 5]
    assert row.data_ptr() == x.data_ptr() and row.dtype is gf.float32 and row.element_size() == 4
    row[4] = -1
    assert row[4] == -1 and x[1, 1] == -1 and row.untyped().nbytes() == 24
    assert repr(row).splitlines()[4] == " -1.0"


def test_extents_and_memory_change_in_compiled_functions_too() -> None:
    def changed(x: gf.Tensor) -> tuple[gf.Tensor, ...]:
        less, more = x.clone().resize_(2, 3) + 0, (x * 1).resize_(5, 3) + 1
        steps = (x * 2).as_strided_((2, 2), (1, 2), 1) * x[0, 1]
        return less, more, steps, x.exp().set_(x * 3)

    x, outer = gf.arange(12.0).reshape(3, 4), gf.zeros(3)
    for found, expected in zip(gf.compile(changed)(x), changed(x), strict=True):
        assert gf.equal(found, expected)
    for wrong in (lambda x: x.resize_(20), lambda x: outer.set_(x)):
        with pytest.raises(gf.TraceError, match="make a new tensor"):
            gf.compile(wrong)(x)


@pytest.mark.parametrize("jit", [lambda f: f, gf.compile])
def test_activations_that_are_methods(jit: Any) -> None:
    x = gf.tensor([-2.0, -0.3, 0.4, 3.0], requires_grad=True)
    slope = gf.tensor(0.25, requires_grad=True)

    def both(x: gf.Tensor, slope: gf.Tensor) -> tuple[Any, ...]:
        out = x.prelu(slope)
        return x.hardshrink(0.35), out, *gf.autograd.grad(out.sum(), [x, slope])

    shrunk, out, dx, dslope = jit(both)(x, slope)
    assert shrunk.tolist() == gf.tensor([-2.0, 0, 0.4, 3]).tolist()
    assert_close(out, gf.tensor([-0.5, -0.075, 0.4, 3]))
    assert dx.tolist() == [0.25, 0.25, 1, 1]
    assert_close(dslope, gf.tensor(-2.3))
