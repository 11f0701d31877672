"""Lazy layers, and layers and helpers that few models use: adaptive softmax, fractional pools."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

import graphflow as gf
import graphflow.nn.functional as F
from graphflow import nn
from graphflow.errors import GraphFlowError, ShapeError
from graphflow.nn.parameter import UninitializedParameter, is_lazy
from graphflow.nn.utils import prune, skip_init
from graphflow.nn.utils.parametrizations import orthogonal
from graphflow.testing import assert_close

SEED = 20261201


def drawn(*shape: int, seed: int = SEED) -> gf.Tensor:
    return gf.tensor(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))


def network() -> nn.Module:
    return nn.Sequential(
        nn.LazyConv2d(4, 3, padding=1), nn.LazyBatchNorm2d(), nn.ReLU(), nn.Flatten(),
        nn.LazyLinear(5),
    )  # fmt: skip


# ---- lazy layers ----------------------------------------------------------------------------


@pytest.mark.parametrize("compiled", [False, True])
def test_the_first_call_gives_parameters_their_shapes(compiled: bool) -> None:
    model = network()
    assert all(map(is_lazy, model.parameters())) and "in_features=0" in repr(model)
    optimizer = gf.optim.Adam(model.parameters())
    x = drawn(2, 3, 6, 6)

    def step(x: Any) -> Any:
        optimizer.zero_grad()
        loss = model(x).square().mean()
        loss.backward()
        optimizer.step()
        return loss

    ready = gf.compile(step) if compiled else step
    first, second = ready(x), ready(x)
    assert second.item() < first.item()
    assert [type(layer).__name__ for layer in model] == [
        "Conv2d", "BatchNorm2d", "ReLU", "Flatten", "Linear",
    ]  # fmt: skip
    assert model[4].weight.shape == (5, 4 * 6 * 6) and model[0].weight.abs().max() > 0
    assert not any(map(is_lazy, (*model.parameters(), *model.buffers())))
    assert all(type(p) is nn.Parameter for p in model.parameters())


def test_states_of_lazy_layers_go_both_ways() -> None:
    model, other = network(), network()
    twin = copy.deepcopy(model)
    state = model.state_dict()
    assert all(is_lazy(state[name]) for name in ("0.weight", "1.running_mean", "4.bias"))
    x = drawn(2, 3, 6, 6)
    model(x)
    for target in (other, twin):
        target.load_state_dict(model.state_dict())
        assert target[0].weight.shape == (4, 3, 3, 3)
        assert_close(target.eval()(x), model.eval()(x))
    with pytest.raises(GraphFlowError, match="no shape before the first call"):
        nn.LazyLinear(3).weight.shape  # noqa: B018
    assert isinstance(nn.LazyLinear(3).double().weight, UninitializedParameter)
    made = nn.LazyLinear(3).double()
    assert made(drawn(2, 4).double()).dtype is gf.float64 and made.in_features == 4


def test_every_lazy_layer_is_its_layer_afterwards() -> None:
    for dims in (1, 2, 3):
        x = drawn(2, 4, *(5,) * dims)
        for name in ("Conv", "ConvTranspose"):
            layer = getattr(nn, f"Lazy{name}{dims}d")(6, 2, stride=2, groups=2, bias=False)
            assert layer(x).shape[:2] == (2, 6) and layer.in_channels == 4
            assert type(layer) is getattr(nn, f"{name}{dims}d") and layer.bias is None
        for name in ("BatchNorm", "InstanceNorm"):
            layer = getattr(nn, f"Lazy{name}{dims}d")()
            assert layer(x).shape == x.shape and layer.num_features == 4
            assert layer.weight.shape == (4,) and layer.running_var.shape == (4,)
    single = nn.LazyInstanceNorm1d()
    assert single(drawn(3, 8)).shape == (3, 8) and single.num_features == 3
    for wrong, error in (
        (lambda: nn.LazyConv2d(6, 2)(drawn(3, 4)), GraphFlowError),
        (lambda: nn.LazyConv1d(6, 2, groups=2)(drawn(1, 3, 4)), ValueError),
        (lambda: nn.LazyConv1d(5, 2, groups=2), ValueError),
        (lambda: nn.LazyBatchNorm1d()(drawn(1, 2, 3, 4)), ValueError),
    ):  # fmt: skip
        with pytest.raises(error):
            wrong()


# ---- adaptive softmax ------------------------------------------------------------------------


def test_adaptive_log_softmax_is_a_distribution_and_its_loss() -> None:
    gf.manual_seed(SEED)
    layer = nn.AdaptiveLogSoftmaxWithLoss(16, 20, [5, 10, 15], div_value=2.0, head_bias=True)
    assert [tuple(p.shape) for p in layer.parameters()] == [
        (8, 16), (8,), (8, 16), (5, 8), (4, 16), (5, 4), (2, 16), (5, 2),
    ]  # fmt: skip
    x, target = drawn(7, 16), gf.tensor([0, 4, 5, 9, 14, 15, 19])
    logs = layer.log_prob(x)
    assert_close(logs.exp().sum(1), gf.ones(7))
    for ready in (lambda f: f, gf.compile):
        output, loss = ready(layer)(x, target)
        assert_close(output, logs[gf.arange(7), target])
        assert_close(loss, -output.mean())
    assert_close(layer.predict(x), logs.argmax(1))
    single = layer(x[2], target[2])
    assert single.output.shape == ()
    assert_close(single.output, logs[2, 5])
    for wrong in ([5, 5], [10, 5], [20], []):
        with pytest.raises(ValueError, match="cutoffs"):
            nn.AdaptiveLogSoftmaxWithLoss(16, 20, wrong)
    with pytest.raises(GraphFlowError, match=r"in \[0, 19\]"):
        layer(x, target + 1)
    with pytest.raises(ShapeError, match="batch"):
        layer(x, target[:3])


# ---- fractional pools --------------------------------------------------------------------------


def test_fractional_pools_take_the_largest_of_their_windows() -> None:
    x, unit = drawn(2, 3, 9, 11), gf.tensor(np.random.default_rng(1).random((2, 3, 2), np.float32))
    for ready in (lambda f: f, gf.compile):
        pool = ready(lambda x, u: F.fractional_max_pool2d(
            x, (3, 2), (4, 5), return_indices=True, _random_samples=u))  # fmt: skip
        values, places = pool(x, unit)
        for n, c, i, j in np.ndindex(2, 3, 4, 5):
            top, left = (
                _start(extent, count, size, unit[n, c, k].item(), at)
                for extent, count, size, k, at in ((9, 4, 3, 1, i), (11, 5, 2, 0, j))
            )
            window = x[n, c, top : top + 3, left : left + 2].numpy()
            assert values[n, c, i, j].item() == window.max()
            assert x[n, c].flatten()[places[n, c, i, j]].item() == window.max()
    y = x.clone().requires_grad_()
    F.fractional_max_pool2d(y, 2, (3, 3), _random_samples=unit).sum().backward()
    assert y.grad is not None and y.grad.sum().item() == 2 * 3 * 9
    layer = nn.FractionalMaxPool3d(2, output_ratio=0.5, return_indices=True)
    values, places = layer(drawn(3, 6, 8, 4))
    assert values.shape == places.shape == (3, 3, 4, 2)
    for wrong in (lambda: nn.FractionalMaxPool2d(2), lambda: nn.FractionalMaxPool2d(2, 3, 0.5),
                  lambda: nn.FractionalMaxPool2d(2, output_ratio=1.5)):  # fmt: skip
        with pytest.raises(ValueError):
            wrong()
    with pytest.raises(ShapeError, match="do not fit"):
        F.fractional_max_pool2d(x, 9, (4, 4))


def _start(extent: int, count: int, size: int, unit: float, at: int) -> int:
    if at == count - 1:
        return extent - size
    step, u = np.float32((extent - size) / (count - 1)), np.float32(unit)
    return int((np.float32(at) + u) * step) - int(u * step)


def test_functions_with_indices_and_modules_without_draws() -> None:
    x = drawn(1, 2, 6, 6)
    assert_close(F.adaptive_max_pool2d_with_indices(x, 2), F.adaptive_max_pool2d(x, 2, True))
    before = gf.get_rng_state()
    made = skip_init(nn.Linear, 4, 3)
    assert made.weight.shape == (3, 4) and not made.weight.any()
    assert_close(gf.get_rng_state(), before)
    assert nn.Linear(4, 3).weight.any()
    with pytest.raises(RuntimeError, match="Module"):
        skip_init(int, 3)  # type: ignore[arg-type]


# ---- orthogonal weights ------------------------------------------------------------------------


@pytest.mark.parametrize("map", ["matrix_exp", "cayley", "householder"])
@pytest.mark.parametrize("shape", [(5, 5), (3, 6), (6, 3)])
def test_orthogonal_weights_stay_so(map: str, shape: tuple[int, int]) -> None:
    gf.manual_seed(SEED)
    layer = nn.Linear(shape[1], shape[0], bias=False)
    first = orthogonal(layer, orthogonal_map=map).weight
    _check_orthonormal(first)
    assert list(layer.state_dict()) == [
        "parametrizations.weight.original", "parametrizations.weight.0.base",
    ]  # fmt: skip
    optimizer = gf.optim.SGD(layer.parameters(), lr=0.005)
    target = drawn(*shape)

    def step() -> Any:
        optimizer.zero_grad()
        loss = (layer.weight - target).square().sum()
        loss.backward()
        optimizer.step()
        return loss

    losses = [step().item() for _ in range(2)] + [gf.compile(step)().item()]
    assert losses[0] > losses[1] > losses[2]
    _check_orthonormal(layer.weight)
    with gf.no_grad():
        layer.weight = wanted = nn.init.orthogonal_(gf.empty(*shape))
    assert_close(layer.weight, wanted, rtol=0, atol=2e-6)


def _check_orthonormal(weight: gf.Tensor) -> None:
    rows = weight if weight.shape[0] <= weight.shape[1] else weight.T
    assert_close(rows @ rows.T, gf.eye(rows.shape[0]), rtol=0, atol=5e-6)


def test_without_a_base_only_reflections_can_be_assigned() -> None:
    layer = nn.Linear(4, 6, bias=False)
    orthogonal(layer, orthogonal_map="householder", use_trivialization=False)
    with gf.no_grad():
        layer.weight = wanted = nn.init.orthogonal_(gf.empty(6, 4))
    assert_close(layer.weight, wanted, rtol=0, atol=2e-6)
    layer = orthogonal(nn.Linear(4, 4), orthogonal_map="cayley", use_trivialization=False)
    _check_orthonormal(layer.weight)
    with pytest.raises(NotImplementedError):
        layer.weight = gf.eye(4)
    for wrong in (lambda: orthogonal(nn.Linear(2, 2), "bias"), lambda: orthogonal(nn.ReLU()),
                  lambda: orthogonal(nn.Linear(2, 2), orthogonal_map="qr")):  # fmt: skip
        with pytest.raises(ValueError):
            wrong()


# ---- pruning -----------------------------------------------------------------------------------


def test_pruned_weights_are_the_smallest_and_stay_at_zero() -> None:
    layer = nn.Linear(10, 6)
    with gf.no_grad():
        layer.weight.copy_(drawn(6, 10))
    before = layer.weight.detach().clone()
    prune.l1_unstructured(layer, "weight", amount=0.3)
    kept = np.sort(np.abs(before.numpy()).ravel())[18]
    assert_close(layer.weight, gf.where(before.abs() >= kept.item(), before, 0.0))
    assert list(layer.state_dict()) == ["bias", "weight_orig", "weight_mask"]
    prune.ln_structured(layer, "weight", amount=2, n=2, dim=0)
    dead = [i for i in range(6) if not layer.weight[i].any()]
    lengths = (before * (before.abs() >= kept.item())).square().sum(1)
    assert dead == sorted(np.argsort(lengths.numpy())[:2].tolist())
    prune.l1_unstructured(layer, "weight", amount=5)
    assert int((layer.weight != 0).sum()) == 60 - _zeros(before, kept, dead) - 5
    optimizer = gf.optim.SGD(layer.parameters(), lr=0.1)
    mask = layer.weight_mask.clone()

    @gf.compile
    def step(x: Any) -> Any:
        optimizer.zero_grad()
        loss = layer(x).square().sum()
        loss.backward()
        optimizer.step()
        return loss

    step(drawn(4, 10))
    assert_close((layer.weight != 0).float(), mask)
    assert prune.is_pruned(nn.Sequential(layer))
    value = layer.weight.detach().clone()
    prune.remove(layer, "weight")
    assert isinstance(layer.weight, nn.Parameter) and not prune.is_pruned(layer)
    assert_close(layer.weight, value)
    with pytest.raises(ValueError, match="has to be pruned"):
        prune.remove(layer, "weight")


def _zeros(before: gf.Tensor, kept: Any, dead: list[int]) -> int:
    alive = before.abs().numpy() >= kept
    alive[dead] = False
    return int((~alive).sum())


def test_pruning_at_random_by_masks_and_over_several_layers() -> None:
    gf.manual_seed(SEED)
    one, two = nn.Linear(8, 8), nn.Linear(8, 2)
    with gf.no_grad():
        two.weight.fill_(100.0)
    pairs = [(one, "weight"), (two, "weight")]
    prune.global_unstructured(pairs, prune.L1Unstructured, amount=0.5)
    assert int(one.weight_mask.sum()) == 24 and int(two.weight_mask.sum()) == 16
    prune.random_unstructured(one, "bias", amount=3)
    assert int((one.bias == 0).sum()) == 3
    prune.random_structured(two, "weight", amount=0.25, dim=1)
    assert int((two.weight.abs().sum(0) == 0).sum()) == 2
    conv = prune.custom_from_mask(nn.Conv1d(1, 1, 3), "weight", gf.tensor([[[1, 0, 1]]]))
    assert conv.weight[0, 0, 1].item() == 0 and conv.weight[0, 0, 0].item() != 0
    assert int((copy.deepcopy(one).bias == 0).sum()) == 3
    for amount in (-1, 1.5, 100):
        with pytest.raises(ValueError, match="amount"):
            prune.l1_unstructured(nn.Linear(2, 2), "weight", amount=amount)
