"""Tensors on a device: moves, views, in-place changes, gradients, programs, errors.

Run by ``tests/test_cuda.py`` in the simulator.
"""

from __future__ import annotations

import copy
from types import SimpleNamespace

import numpy as np
import pytest

import graphflow as gf
from graphflow import nn
from graphflow.errors import GraphFlowError

DTYPES = (
    gf.float32, gf.float64, gf.float16, gf.bfloat16, gf.int8, gf.int64, gf.uint8, gf.bool,
    gf.complex64,
)  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_tensor_goes_there_and_back(dtype: gf.dtype) -> None:
    there = gf.tensor([[0, 1, 2], [3, 1, 0]]).to(dtype).to("cuda")
    assert there.device == gf.device("cuda", 0) and there.is_cuda and not there.is_cpu
    assert there.dtype is dtype and there.shape == (2, 3)
    back = there.cpu()
    assert back.device.type == "cpu"
    np.testing.assert_array_equal(back.numpy(), gf.tensor([[0, 1, 2], [3, 1, 0]]).to(dtype).numpy())


def test_moving_to_where_it_is_changes_nothing() -> None:
    x = gf.tensor([1.0]).cuda()
    assert x.to("cuda") is x and x.cuda() is x and x.to(x.device) is x


def test_views_share_memory_and_in_place_changes_show() -> None:
    x = gf.arange(12.0).to("cuda").reshape(3, 4)
    row, turned = x[1], x.t()
    row.mul_(10)
    expected = np.arange(12.0, dtype=np.float32).reshape(3, 4)
    expected[1] *= 10
    np.testing.assert_array_equal(x.cpu().numpy(), expected)
    np.testing.assert_array_equal(turned.cpu().numpy(), expected.T)
    np.testing.assert_array_equal(x[:, 1::2].contiguous().cpu().numpy(), expected[:, 1::2])
    turned[0].fill_(7)
    expected[:, 0] = 7
    np.testing.assert_array_equal(x.cpu().numpy(), expected)


def test_results_that_are_reshaped_after_a_transpose() -> None:
    """No strides of what the program has in memory show them: they are copied, as by NumPy."""
    x = gf.arange(24.0).reshape(2, 3, 4)
    step = gf.compile(lambda x: ((x * 2).transpose(0, 1).reshape(3, 8), (x * 2).mT.flatten()))
    for found, wanted in zip(step(x.cuda()), step(x), strict=True):
        np.testing.assert_array_equal(found.cpu().numpy(), wanted.numpy())


def test_the_interface_says_where_the_memory_lies() -> None:
    x = gf.zeros(2, 3).cuda()
    found = x.t().__cuda_array_interface__
    assert found["shape"] == (3, 2) and found["typestr"] == "<f4" and found["strides"] == (4, 12)
    assert not hasattr(gf.zeros(2), "__cuda_array_interface__")


def test_a_tensor_on_a_device_is_no_array() -> None:
    with pytest.raises(TypeError, match=r"cuda:0.*\.cpu\(\)"):
        gf.zeros(2).cuda().numpy()


def test_reading_values_copies_them() -> None:
    x = gf.tensor([1.5, 2.5]).cuda()
    assert x.tolist() == [1.5, 2.5] and x[1].item() == 2.5 and bool(x[0] > 1)
    assert "2.5000" in repr(x)


def test_new_tensors_where_they_are_asked_for() -> None:
    assert gf.zeros(2, device="cuda").is_cuda
    assert gf.tensor([1], device="cuda:0").is_cuda
    assert gf.zeros_like(gf.ones(2).cuda()).is_cuda
    assert gf.ones(2).cuda().new_zeros(3).is_cuda


def test_operands_on_two_devices_are_refused() -> None:
    with pytest.raises(GraphFlowError, match=r"add takes tensors.*one device.*f32\[2\] on cpu"):
        gf.ones(2).cuda() + gf.ones(2)
    np.testing.assert_array_equal((gf.ones(2).cuda() + gf.tensor(1.0)).cpu().numpy(), [2, 2])


def test_a_program_with_an_argument_elsewhere_is_refused() -> None:
    layer = nn.Linear(3, 2).to("cuda")
    with pytest.raises(GraphFlowError, match=r"program .* one device"):
        gf.compile(layer)(gf.ones(4, 3))


def test_gradients_cross_over() -> None:
    x = gf.tensor([1.0, 2.0, 3.0], requires_grad=True)
    (x.to("cuda") ** 2).sum().backward()
    assert x.grad is not None and x.grad.device.type == "cpu"
    np.testing.assert_allclose(x.grad.numpy(), [2, 4, 6])


def test_eager_layers_agree_with_the_cpu() -> None:
    gf.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.LayerNorm(5), nn.Linear(5, 1))
    x = gf.randn(3, 4)
    here = copy.deepcopy(model)
    there = copy.deepcopy(model).cuda()
    assert copy.deepcopy(there)[0].weight.is_cuda
    for net, data in ((here, x), (there, x.cuda())):
        net(data).pow(2).mean().backward()
    for a, b in zip(here.parameters(), there.parameters(), strict=True):
        assert b.grad is not None and b.grad.is_cuda
        np.testing.assert_allclose(a.grad.numpy(), b.grad.cpu().numpy(), 1e-4, 1e-6)


def test_random_numbers_are_those_of_the_cpu() -> None:
    def noisy(x: gf.Tensor) -> gf.Tensor:
        return x + gf.rand(*x.shape) + gf.nn.functional.dropout(x, 0.5)

    found = []
    for device in ("cpu", "cuda"):
        gf.manual_seed(3)
        program = gf.compile(noisy)
        found.append([program(gf.ones(7, device=device)).cpu().numpy() for _ in range(2)])
    np.testing.assert_array_equal(found[0], found[1])


def test_a_step_that_fails_has_changed_nothing() -> None:
    table = gf.zeros(4, 2).cuda()

    def step(i: gf.Tensor) -> None:
        table.add_(1)
        table.copy_(table + table[i].sum())

    step = gf.compile(step)
    with pytest.raises(IndexError, match="out of range"):
        step(gf.tensor([0, 9]).cuda())
    np.testing.assert_array_equal(table.cpu().numpy(), np.zeros((4, 2)))
    step(gf.tensor([0, 1]).cuda())
    np.testing.assert_array_equal(table.cpu().numpy(), np.full((4, 2), 5.0))


def test_loops_and_branches_of_a_program() -> None:
    def grow(x: gf.Tensor) -> gf.Tensor:
        return gf.while_loop(lambda v: v.sum() < 100, lambda v: v * 2, x)

    found = [gf.compile(grow)(gf.tensor([1.0, 2.0]).to(d)).cpu().numpy() for d in ("cpu", "cuda")]
    np.testing.assert_array_equal(found[0], found[1])


def on_both(function, *arrays: np.ndarray) -> tuple[list[np.ndarray], gf.Program]:
    """What a function gives on the CPU and on the device, and the program there."""
    given = [gf.tensor(a) for a in arrays]
    program = gf.compile(function)
    there = program(*(t.cuda() for t in given))
    return [gf.compile(function)(*given).numpy(), there.cpu().numpy()], program.latest.program


@pytest.mark.parametrize("axis", [None, 1])  # over axis 0 it is columns that are folded
def test_long_rows_are_folded_in_parts(axis: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    from graphflow.codegen.cuda import cut

    monkeypatch.setattr(cut, "LONG_ROW", 64)
    monkeypatch.setattr(cut, "PART", 50)
    x = np.random.default_rng(0).standard_normal((3, 130))
    axes = (0, 1) if axis is None else axis
    (here, there), program = on_both(lambda x: (x * x).sum(axes) / 7, x.astype(np.float32))
    names = [call.kernel.name for call in program.schedule.steps]
    assert len(names) == 2 and names[0].startswith("part_")
    np.testing.assert_allclose(here, there, 1e-5)


@pytest.mark.parametrize("exact", [False, True])
def test_scatters_add_atomically_or_in_order(exact: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gf.backends.cuda, "deterministic", exact)
    rng = np.random.default_rng(0)
    where, values = rng.integers(0, 5, 40), rng.standard_normal((40, 3)).astype(np.float32)
    (here, there), program = on_both(lambda i, v: gf.zeros(5, 3).index_add(0, i, v), where, values)
    sources = [call.kernel.source for call in program.schedule.steps]
    assert any("cuda.atomic.add" in text for text in sources) != exact
    np.testing.assert_allclose(here, there, 0 if exact else 1e-5, 0 if exact else 1e-6)


def test_layers_and_random_numbers_where_they_are_asked_for() -> None:
    assert nn.Linear(2, 3, device="cuda").weight.is_cuda
    assert gf.rand(3, device="cuda").is_cuda and gf.linspace(0, 1, 3, device="cuda").is_cuda


def test_memory_is_counted_and_given_back() -> None:
    before = gf.cuda.memory_allocated()
    gf.cuda.reset_peak_memory_stats()
    x = gf.zeros(1000, device="cuda")
    assert gf.cuda.memory_allocated() - before >= 4000
    del x
    assert gf.cuda.memory_allocated() == before
    assert gf.cuda.max_memory_allocated() - before >= 4000


# ---- gf.verify -----------------------------------------------------------------------


def test_verify_looks_at_kernels_for_cuda() -> None:
    weights = gf.randn(3, 2)
    rows = gf.verify(lambda x: gf.tanh(x @ weights).sum(), gf.ones(4, 3), device="cuda").check()
    forms = [row.form for row in rows.compared]
    assert "kernels" in forms and "cuda kernels" in forms and "cuda: after fuse" in forms


def test_verify_of_what_lies_on_the_device() -> None:
    weights = gf.randn(3, 2).to("cuda")

    def step(x: gf.Tensor) -> gf.Tensor:
        weights.mul_(0.5)
        return (x @ weights).sin()

    before = weights.cpu().numpy().copy()
    assert "cuda kernels" in str(gf.verify(step, gf.ones(4, 3).to("cuda")).check())
    np.testing.assert_array_equal(weights.cpu().numpy(), before)


def test_verify_names_a_kernel_for_cuda_that_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    from graphflow.codegen.cuda import prelude

    right = prelude.vm
    wrong = SimpleNamespace(**{**vars(right), "tanh": lambda x: right.tanh(x) * np.float32(1.01)})
    monkeypatch.setattr(prelude, "vm", wrong)  # kernel files import it when they are first run
    found = gf.verify(lambda x: gf.tanh(x + 1.5) * 2.5, gf.ones(4, 3), device="cuda")
    assert not found and found.finding is not None
    assert found.finding.stage == "cuda kernels" and "tanh" in found.finding.node, str(found)
    assert found.finding.location is not None and found.finding.location.file == __file__


def test_gradients_outside_a_program_take_saved_images_as_they_lie() -> None:
    gf.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Tanh(), nn.Conv2d(8, 8, 3), nn.Tanh())
    x = gf.randn(1, 3, 6, 6)
    model(x).sum().backward()
    wanted = [p.grad.numpy() for p in model.parameters()]
    there = copy.deepcopy(model).cuda()
    there.zero_grad()
    compiled = gf.compile(there)
    compiled(x.cuda()).sum().backward()
    orders = compiled.latest.backward.orders
    assert (0, 2, 3, 1) in orders
    for p, want in zip(there.parameters(), wanted, strict=True):
        np.testing.assert_allclose(p.grad.cpu().numpy(), want, rtol=1e-4, atol=1e-5)
