"""nn.functional against NumPy's formulas, differences for gradients, and compiled against eager."""

import numpy as np
import pytest
import scipy.special

import graphflow as gf
from graphflow.nn import functional as F
from tests.front import agree


def data(*shape, seed=0, low=-4.0, high=4.0):
    """Random numbers that a failing test can make again from its seed."""
    return np.random.default_rng(seed).uniform(low, high, shape)


def softplus(x, beta=1.0):
    return np.logaddexp(0, beta * x) / beta


def relu(x):
    return np.maximum(x, 0)


SELU = (1.6732632423543772, 1.0507009873554805)
# name: (arguments, the formula)
ACTIVATIONS = {
    "relu": ((), relu),
    "relu6": ((), lambda x: np.clip(x, 0, 6)),
    "hardtanh": ((-0.5, 2.0), lambda x: np.clip(x, -0.5, 2.0)),
    "hardsigmoid": ((), lambda x: np.clip(x + 3, 0, 6) / 6),
    "hardswish": ((), lambda x: x * np.clip(x + 3, 0, 6) / 6),
    "leaky_relu": ((0.2,), lambda x: np.where(x > 0, x, 0.2 * x)),
    "rrelu": ((0.1, 0.3), lambda x: np.where(x > 0, x, 0.2 * x)),
    "elu": ((1.5,), lambda x: np.where(x > 0, x, 1.5 * np.expm1(x))),
    "celu": ((1.5,), lambda x: relu(x) + np.minimum(0, 1.5 * np.expm1(x / 1.5))),
    "selu": ((), lambda x: SELU[1] * np.where(x > 0, x, SELU[0] * np.expm1(x))),
    "gelu": ((), lambda x: x * scipy.special.ndtr(x)),
    "silu": ((), lambda x: x * scipy.special.expit(x)),
    "mish": ((), lambda x: x * np.tanh(softplus(x))),
    "softplus": ((2.0,), lambda x: softplus(x, 2.0)),
    "softsign": ((), lambda x: x / (1 + np.abs(x))),
    "tanhshrink": ((), lambda x: x - np.tanh(x)),
    "hardshrink": ((0.7,), lambda x: np.where(np.abs(x) > 0.7, x, 0)),
    "softshrink": ((0.7,), lambda x: np.sign(x) * relu(np.abs(x) - 0.7)),
    "threshold": ((0.3, -9.0), lambda x: np.where(x > 0.3, x, -9.0)),
    "logsigmoid": ((), lambda x: -np.logaddexp(0, -x)),
    "glu": ((1,), lambda x: x[:, :2] * scipy.special.expit(x[:, 2:])),
    "softmin": ((1,), lambda x: scipy.special.softmax(-x, 1)),
}


def differences(function, x, h=1e-6):
    """The gradient of ``function``'s sum by central differences."""
    slope = np.zeros_like(x)
    for i in np.ndindex(x.shape):
        step = np.zeros_like(x)
        step[i] = h
        slope[i] = (np.sum(function(x + step)) - np.sum(function(x - step))) / (2 * h)
    return slope


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_and_their_gradients(name):
    arguments, formula = ACTIVATIONS[name]
    x = data(3, 4, seed=1)
    t = gf.tensor(x, requires_grad=True)
    out = getattr(F, name)(t, *arguments)
    np.testing.assert_allclose(out.detach().numpy(), formula(x), rtol=1e-9, atol=1e-12)
    out.sum().backward()
    np.testing.assert_allclose(t.grad.numpy(), differences(formula, x), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("name", "x", "slope"),
    [  # recorded from PyTorch 2.13
        ("relu", 0.0, 0.0), ("relu6", 6.0, 0.0), ("hardtanh", 1.0, 0.0), ("hardtanh", -1.0, 0.0),
        ("hardsigmoid", 3.0, 0.0), ("hardswish", 3.0, 1.0), ("leaky_relu", 0.0, 0.01),
        ("elu", 0.0, 1.0), ("hardshrink", 0.5, 0.0), ("softshrink", 0.5, 0.0),
        ("logsigmoid", 0.0, 0.5), ("softsign", 0.0, 1.0),
    ],
)  # fmt: skip
def test_slopes_at_corners(name, x, slope):
    t = gf.tensor([x], requires_grad=True)
    getattr(F, name)(t).backward()
    assert t.grad.item() == pytest.approx(slope)


@pytest.mark.parametrize("name", ["relu_", "elu_", "celu_", "selu_", "leaky_relu_", "hardtanh_"])
def test_in_place_forms_write_and_differentiate(name):
    x = data(5, seed=2)
    leaf = gf.tensor(x, requires_grad=True)
    middle = leaf * 1.0
    out = getattr(F, name)(middle)
    assert out is middle
    other = gf.tensor(x, requires_grad=True)
    expected = getattr(F, name[:-1])(other)
    np.testing.assert_array_equal(out.detach().numpy(), expected.detach().numpy())
    out.sum().backward()
    expected.sum().backward()
    np.testing.assert_allclose(leaf.grad.numpy(), other.grad.numpy())


def test_prelu_has_a_slope_a_channel():
    x, w = data(2, 3, 4, seed=3), data(3, seed=4)
    got = F.prelu(gf.tensor(x), gf.tensor(w)).numpy()
    np.testing.assert_allclose(got, np.where(x > 0, x, x * w[:, None]))
    with pytest.raises(gf.ShapeError, match="prelu"):
        F.prelu(gf.tensor(x), gf.tensor(w[:2]))


def test_random_activations_follow_their_distributions():
    gf.manual_seed(3)
    x = -gf.ones(20000)
    slopes = -F.rrelu(x, 0.1, 0.5, training=True).numpy()
    assert 0.1 <= slopes.min() and slopes.max() <= 0.5
    assert abs(slopes.mean() - 0.3) < 0.005
    logits = gf.log(gf.tensor([0.1, 0.2, 0.7])).expand(20000, 3)
    drawn = F.gumbel_softmax(logits, hard=True)
    assert set(np.unique(np.round(drawn.numpy(), 5))) == {0.0, 1.0}
    np.testing.assert_allclose(drawn.numpy().mean(0), [0.1, 0.2, 0.7], atol=0.015)


@pytest.mark.parametrize(
    ("name", "shape"),
    [("dropout1d", (6, 50, 5)), ("dropout2d", (6, 50, 3, 2)), ("dropout3d", (6, 50, 2, 2, 1)),
     ("dropout1d", (200, 5)), ("dropout", (40, 40))],
)  # fmt: skip
def test_dropout_drops_whole_channels_at_its_rate(name, shape):
    gf.manual_seed(5)
    out = getattr(F, name)(gf.ones(*shape), 0.25).numpy()
    channels = out.reshape(-1, 1 if name == "dropout" else out.shape[-1])
    assert set(np.unique(out.round(4))) == {0.0, np.float32(1 / 0.75).round(4)}
    assert (channels == channels[:, :1]).all()
    assert abs((channels[:, 0] == 0).mean() - 0.25) < 0.12
    x = gf.ones(*shape)
    assert getattr(F, name)(x, 0.25, training=False) is x
    with pytest.raises(ValueError, match="between 0 and 1"):
        getattr(F, name)(x, 1.5)


def test_alpha_dropout_keeps_mean_and_variance():
    gf.manual_seed(6)
    x = gf.randn(400, 200)
    for out in (F.alpha_dropout(x, 0.3, True), F.feature_alpha_dropout(x, 0.3, True)):
        assert abs(out.numpy().mean()) < 0.02 and abs(out.numpy().std() - 1) < 0.02


# ---- normalisation -------------------------------------------------------------------


def standardised(x, axes, eps=1e-5):
    return (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + eps)


def test_batch_norm_trains_and_evaluates():
    x, w, b = data(4, 3, 5, seed=7), data(3, seed=8), data(3, seed=9)
    mean, var = gf.zeros(3, dtype=gf.float64), gf.ones(3, dtype=gf.float64)
    out = F.batch_norm(gf.tensor(x), mean, var, gf.tensor(w), gf.tensor(b), True, 0.2)
    expected = standardised(x, (0, 2)) * w[:, None] + b[:, None]
    np.testing.assert_allclose(out.numpy(), expected, atol=1e-12)
    np.testing.assert_allclose(mean.numpy(), 0.2 * x.mean((0, 2)))
    np.testing.assert_allclose(var.numpy(), 0.8 + 0.2 * x.var((0, 2), ddof=1))
    still = F.batch_norm(gf.tensor(x), mean, var, eps=0.1)
    m, v = mean.numpy()[:, None], var.numpy()[:, None]
    np.testing.assert_allclose(still.numpy(), (x - m) / np.sqrt(v + 0.1))
    with pytest.raises(ValueError, match="more than 1 value"):
        F.batch_norm(gf.ones(1, 3), None, None, training=True)


NORMS = {
    "layer_norm": (lambda t: F.layer_norm(t, (4, 3)), lambda x: standardised(x, (2, 3))),
    "instance_norm": (F.instance_norm, lambda x: standardised(x, (2, 3))),
    "group_norm": (
        lambda t: F.group_norm(t, 2),
        lambda x: standardised(x.reshape(2, 2, -1), 2).reshape(x.shape),
    ),
    "rms_norm": (
        lambda t: F.rms_norm(t, (3,), eps=1e-3),
        lambda x: x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-3),
    ),
    "local_response_norm": (
        lambda t: F.local_response_norm(t, 3, 0.5, 0.75, 2.0),
        lambda x: x / (2 + 0.5 / 3 * _neighbours(x * x)) ** 0.75,
    ),
    "normalize": (F.normalize, lambda x: x / np.linalg.norm(x, axis=1, keepdims=True)),
}


def _neighbours(x):
    padded = np.pad(x, ((0, 0), (1, 1), (0, 0), (0, 0)))
    return padded[:, :-2] + padded[:, 1:-1] + padded[:, 2:]


@pytest.mark.parametrize("name", NORMS)
def test_norms_and_their_gradients(name):
    function, formula = NORMS[name]
    x, c = data(2, 4, 4, 3, seed=10), data(2, 4, 4, 3, seed=11)
    t = gf.tensor(x, requires_grad=True)
    out = function(t)
    np.testing.assert_allclose(out.detach().numpy(), formula(x), atol=1e-10)
    (out * gf.tensor(c)).sum().backward()
    expected = differences(lambda v: formula(v) * c, x)
    np.testing.assert_allclose(t.grad.numpy(), expected, atol=1e-6)


def test_half_precision_is_normalised_in_single():
    x = data(4, 300, seed=12, low=-200, high=200).astype(np.float16)
    out = F.layer_norm(gf.tensor(x), (300,))
    assert out.dtype is gf.float16
    np.testing.assert_allclose(out.numpy(), standardised(x.astype(float), 1), atol=2e-3)


def test_compiled_agrees_with_eager():
    def program(jit):
        mean, var = gf.zeros(4), gf.ones(4)

        def step(x, w):
            y = F.batch_norm(x, mean, var, training=True)
            y = F.group_norm(F.hardswish(y), 2) + F.local_response_norm(x, 3)
            y = F.dropout2d(F.celu(y, inplace=True), 0.5) + F.instance_norm(y)
            return F.prelu(y, w), F.softmin(y, 1), F.alpha_dropout(y, 0.2, True)

        run = jit(step)
        x = gf.tensor(data(3, 4, 5, 2, seed=13), dtype=gf.float32)
        w = gf.tensor([0.1, 0.2, 0.3, 0.4])
        return [*run(x, w), *run(x + 1, w), mean, var]

    agree(program, rtol=2e-5, atol=2e-5)


def test_probabilities_may_be_numbers_of_numpy() -> None:
    x = gf.ones(1000)
    for p in (np.float32(0.5), np.float64(0.5)):
        gf.manual_seed(5)
        found = F.dropout(x, p)
        gf.manual_seed(5)
        assert found.dtype is gf.float32 and gf.equal(found, F.dropout(x, 0.5))


@pytest.mark.parametrize("call", [lambda f: f, gf.compile])
def test_linear_maps_of_no_features(call) -> None:
    """What has no elements has any number of rows; the sum over no products is the bias."""
    x, bias = gf.zeros(2, 3, 0), gf.arange(4.0)
    made = call(lambda x: F.linear(x, gf.zeros(4, 0), bias))(x)
    np.testing.assert_array_equal(made.numpy(), np.broadcast_to(np.arange(4.0), (2, 3, 4)))
    made = call(lambda x: F.bilinear(x, gf.ones(2, 3, 5), gf.zeros(4, 0, 5), bias))(x)
    np.testing.assert_array_equal(made.numpy(), np.broadcast_to(np.arange(4.0), (2, 3, 4)))
