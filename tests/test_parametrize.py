"""Weights that are functions of others: parametrizations, weight and spectral normalisation."""

from __future__ import annotations

import copy

import numpy as np
import pytest

import graphflow as gf
from graphflow import nn, optim
from graphflow.nn.utils import parametrizations, parametrize


def lengths(v: np.ndarray, dim: int | None) -> np.ndarray:
    axes = None if dim is None else tuple(d for d in range(v.ndim) if d != dim)
    return np.sqrt((v.astype(np.float64) ** 2).sum(axes, keepdims=dim is not None))


@pytest.mark.parametrize("dim", [0, 1, None])
@pytest.mark.parametrize("new", [True, False])
def test_weight_norm_keeps_the_weight_and_trains_length_and_direction(new: bool, dim) -> None:
    gf.manual_seed(1)
    layer = nn.Conv1d(3, 4, 2)
    before = np.array(layer.weight.detach())
    (parametrizations if new else nn.utils).weight_norm(layer, dim=dim)
    keys = sorted(layer.state_dict())
    g, v = (
        ("parametrizations.weight.original0", "parametrizations.weight.original1")
        if new else ("weight_g", "weight_v")
    )  # fmt: skip
    assert keys == sorted(["bias", g, v])
    np.testing.assert_allclose(layer.weight.detach().numpy(), before, rtol=1e-6)
    held = dict(layer.named_parameters())
    np.testing.assert_allclose(held[g].detach().numpy(), lengths(before, dim), rtol=1e-6)
    opt = optim.SGD(layer.parameters(), lr=0.01)
    x = gf.randn(2, 3, 5)

    def step(x):
        opt.zero_grad()
        loss = layer(x).square().sum()
        loss.backward()
        opt.step()
        return loss

    start = copy.deepcopy(layer.state_dict())
    eager = [step(x).item() for _ in range(3)]
    assert eager[2] < eager[0]
    layer.load_state_dict(start)
    np.testing.assert_allclose([gf.compile(step)(x).item()], eager[:1], rtol=1e-5)
    parts = {k: np.array(t.detach()) for k, t in layer.named_parameters()}
    expected = parts[v] * parts[g] / lengths(parts[v], dim)
    np.testing.assert_allclose(layer.weight.detach().numpy(), expected, rtol=1e-5)
    if new:
        parametrize.remove_parametrizations(layer, "weight")
    else:
        nn.utils.remove_weight_norm(layer)
    assert sorted(layer.state_dict()) == ["bias", "weight"] and type(layer) is nn.Conv1d
    np.testing.assert_allclose(layer.weight.detach().numpy(), expected, rtol=1e-5)


@pytest.mark.parametrize("new", [True, False])
def test_spectral_norm_approaches_the_largest_singular_value(new: bool) -> None:
    gf.manual_seed(2)
    layer = nn.ConvTranspose2d(2, 5, 3)
    weight = np.array(layer.weight.detach())
    (parametrizations if new else nn.utils).spectral_norm(layer, n_power_iterations=2)
    matrix = weight.transpose(1, 0, 2, 3).reshape(5, -1)
    x = gf.randn(1, 2, 4, 4)
    step = gf.compile(lambda x: layer(x))
    for _ in range(60):
        step(x)
    layer.eval()
    largest = np.linalg.svd(matrix.astype(np.float64), compute_uv=False)[0]
    np.testing.assert_allclose(layer.weight.detach().numpy(), weight / largest, rtol=1e-3)
    held = copy.deepcopy(layer.state_dict())
    step(x)  # evaluation leaves the vectors alone
    for name, value in layer.state_dict().items():
        assert value.tolist() == held[name].tolist(), name
    if new:
        parametrize.remove_parametrizations(layer, "weight", leave_parametrized=False)
        assert layer.weight.tolist() == weight.tolist()
    else:
        nn.utils.remove_spectral_norm(layer)
        np.testing.assert_allclose(layer.weight.detach().numpy(), weight / largest, rtol=1e-3)
    assert sorted(layer.state_dict()) == ["bias", "weight"] and not layer._forward_pre_hooks


class Symmetric(nn.Module):
    def forward(self, x):
        return x.triu() + x.triu(1).T

    def right_inverse(self, x):
        return x.triu()


class Doubled(nn.Module):
    def forward(self, x):
        return 2 * x


def test_parametrizations_follow_each_other_and_can_be_assigned_and_removed() -> None:
    layer, other = nn.Linear(3, 3), nn.Linear(3, 3)
    parametrize.register_parametrization(layer, "weight", Symmetric())
    weight = np.array(layer.weight.detach())
    np.testing.assert_array_equal(weight, weight.T)
    assert parametrize.is_parametrized(layer) and parametrize.is_parametrized(layer, "weight")
    assert not parametrize.is_parametrized(layer, "bias") and not parametrize.is_parametrized(other)
    assert type(other) is nn.Linear is parametrize.type_before_parametrizations(layer)
    layer.weight = gf.eye(3)
    assert layer.weight.tolist() == np.eye(3).tolist()
    layer.weight = nn.Parameter(gf.ones(3, 3))
    assert layer.weight.tolist() == np.ones((3, 3)).tolist()
    again = copy.deepcopy(layer)
    parametrize.register_parametrization(layer, "weight", Doubled())
    assert layer.weight.tolist() == (2 * np.ones((3, 3))).tolist()
    assert again.weight.tolist() == np.ones((3, 3)).tolist()
    with pytest.raises(gf.GraphFlowError, match="right_inverse"):
        layer.weight = gf.eye(3)
    assert [name for name, _ in layer.named_parameters()] == [
        "bias", "parametrizations.weight.original",
    ]  # fmt: skip
    with parametrize.cached():
        assert layer(gf.ones(1, 3)).shape == (1, 3)
    parametrize.remove_parametrizations(layer, "weight")
    assert type(layer) is nn.Linear and layer.weight.tolist() == (2 * np.ones((3, 3))).tolist()


def test_what_cannot_be_parametrized_is_refused_and_changes_nothing() -> None:
    class Short(nn.Module):
        def forward(self, x):
            return x[:1]

    layer = nn.Linear(3, 2)
    for wrong in (
        lambda: parametrize.register_parametrization(layer, "wait", Doubled()),
        lambda: parametrize.register_parametrization(layer, "weight", Short()),
        lambda: parametrize.remove_parametrizations(layer, "weight"),
        lambda: nn.utils.weight_norm(layer, "wait"),
        lambda: nn.utils.remove_weight_norm(layer),
        lambda: nn.utils.remove_spectral_norm(layer),
        lambda: nn.utils.spectral_norm(layer, n_power_iterations=0),
        lambda: parametrizations.spectral_norm(layer, n_power_iterations=0),
    ):
        with pytest.raises(ValueError):
            wrong()
        assert sorted(layer.state_dict()) == ["bias", "weight"] and type(layer) is nn.Linear


def test_a_parametrized_layer_says_so_in_its_name() -> None:
    layer = parametrizations.weight_norm(nn.Linear(2, 3))
    assert repr(layer).startswith("ParametrizedLinear(\n  in_features=2, out_features=3, bias=True")
    assert parametrize.type_before_parametrizations(layer) is nn.Linear
    parametrize.remove_parametrizations(layer, "weight")
    assert repr(layer) == "Linear(in_features=2, out_features=3, bias=True)"
