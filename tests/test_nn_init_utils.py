"""nn.init by the distributions' moments and nn.utils by NumPy; clipping inside compiled steps."""

import math

import numpy as np
import pytest

import graphflow as gf
from graphflow import nn, optim
from graphflow.nn import init, utils
from tests.front import agree, linear, ramp


@pytest.fixture(autouse=True)
def _seed():
    gf.manual_seed(7)


def moments(tensor):
    values = tensor.numpy()
    return values.mean(), values.std()


@pytest.mark.parametrize(
    ("fill", "std"),
    [  # weight [200, 50, 2, 2]: fan_in 200, fan_out 800
        (lambda w: init.xavier_uniform_(w), math.sqrt(2 / 1000)),
        (lambda w: init.xavier_normal_(w, 2.0), 2 * math.sqrt(2 / 1000)),
        (lambda w: init.kaiming_uniform_(w, nonlinearity="relu"), math.sqrt(2 / 200)),
        (lambda w: init.kaiming_normal_(w, mode="fan_out"), math.sqrt(2 / 800)),
        (lambda w: init.uniform_(w, -3.0, 3.0), math.sqrt(3)),
        (lambda w: init.normal_(w, 0.0, 0.3), 0.3),
    ],
)
def test_random_fills_have_their_spread(fill, std):
    w = gf.empty(200, 50, 2, 2)
    assert fill(w) is w
    mean, found = moments(w)
    assert abs(mean) < 0.02 * std and abs(found / std - 1) < 0.02


def test_truncated_normal_values():
    w = init.trunc_normal_(gf.empty(40000), 1.0, 2.0, -1.0, 3.0)
    values = w.numpy()
    assert values.min() >= -1 and values.max() <= 3
    # The standard deviation of a normal cut at ±1: sqrt(1 - 2 phi(1) / (2 Phi(1) - 1)).
    assert abs(values.mean() - 1) < 0.03 and abs(values.std() / (2 * 0.5396) - 1) < 0.02


def test_fixed_fills():
    np.testing.assert_array_equal(init.eye_(gf.ones(2, 3)), np.eye(2, 3))
    np.testing.assert_array_equal(init.constant_(gf.zeros(2), 0.5), [0.5, 0.5])
    w = init.dirac_(gf.ones(4, 2, 3), groups=2).numpy()
    expected = np.zeros((4, 2, 3))
    for o, i in ((0, 0), (1, 1), (2, 0), (3, 1)):
        expected[o, i, 1] = 1
    np.testing.assert_array_equal(w, expected)


@pytest.mark.parametrize("shape", [(4, 9), (9, 4), (5, 3, 2)])
def test_orthogonal_rows_or_columns(shape):
    w = init.orthogonal_(gf.empty(*shape), gain=2.0).numpy().reshape(shape[0], -1)
    product = w @ w.T if w.shape[0] <= w.shape[1] else w.T @ w
    np.testing.assert_allclose(product, 4 * np.eye(len(product)), atol=1e-5)


def test_sparse_columns():
    w = init.sparse_(gf.empty(10, 300), 0.33, std=2.0).numpy()
    assert ((w == 0).sum(0) == 4).all() and abs(w[w != 0].std() - 2) < 0.15


def test_gains_and_bad_input():
    assert init.calculate_gain("conv2d") == 1 and init.calculate_gain("tanh") == 5 / 3
    assert init.calculate_gain("leaky_relu", 0.2) == pytest.approx(math.sqrt(2 / 1.04))
    for wrong in (
        lambda: init.calculate_gain("square"),
        lambda: init.xavier_normal_(gf.ones(3)),
        lambda: init.kaiming_normal_(gf.ones(3, 3), mode="fan"),
        lambda: init.eye_(gf.ones(3)),
        lambda: init.dirac_(gf.ones(3, 3)),
    ):
        with pytest.raises(ValueError):
            wrong()


def test_norm_clipping():
    p, q = (nn.Parameter(gf.zeros(3)) for _ in range(2))
    p.grad, q.grad = gf.tensor([3.0, 0.0, 4.0]), gf.tensor([0.0, 12.0, 0.0])
    assert utils.get_total_norm([p.grad, q.grad]).item() == pytest.approx(13)
    assert utils.clip_grad_norm_([p, q], 26.0).item() == pytest.approx(13)
    np.testing.assert_allclose(q.grad, [0, 12, 0], rtol=1e-6)
    utils.clip_grad_norm_([p, q], 1.3)
    np.testing.assert_allclose(p.grad, [0.3, 0, 0.4], rtol=1e-5)
    assert utils.clip_grad_norm_(p, 1.0, math.inf).item() == pytest.approx(0.4, rel=1e-5)
    utils.clip_grad_value_([p, q], 0.35)
    np.testing.assert_allclose(p.grad, [0.3, 0, 0.35], rtol=1e-5)
    p.grad = gf.tensor([math.nan, 1.0, 1.0])
    with pytest.raises(gf.GraphFlowError, match="not finite"):
        utils.clip_grad_norm_(p, 1.0, error_if_nonfinite=True)
    assert utils.clip_grad_norm_([nn.Parameter(gf.ones(1))], 1.0).item() == 0


def test_clipping_inside_a_compiled_step():
    def program(jit):
        model = linear()
        opt = optim.SGD(model.parameters(), lr=0.1)

        def step(x):
            opt.zero_grad()
            (model(x) ** 2).sum().backward()
            norm = utils.clip_grad_norm_(model.parameters(), 0.5)
            utils.clip_grad_value_(model.parameters(), 0.2)
            opt.step()
            return norm

        run = jit(step)
        return [*(run(ramp(6, 4)) for _ in range(3)), *model.parameters()]

    agree(program)


def test_parameters_as_a_vector():
    model = linear()
    vector = utils.parameters_to_vector(model.parameters())
    assert vector.shape == (15,) and vector.requires_grad
    utils.vector_to_parameters(gf.arange(15.0), model.parameters())
    np.testing.assert_array_equal(model.weight.detach().numpy().ravel(), np.arange(12))
    np.testing.assert_array_equal(model.bias.detach(), [12, 13, 14])


def test_a_batch_norm_folds_into_its_convolution():
    conv, bn = nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3)
    x = ramp(2, 2, 6, 6)
    bn(conv(x))
    init.uniform_(bn.weight, 0.5, 2.0)
    conv.eval(), bn.eval()
    fused = utils.fuse_conv_bn_eval(conv, bn)
    np.testing.assert_allclose(fused(x).detach(), bn(conv(x)).detach(), rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="evaluation"):
        utils.fuse_conv_bn_eval(conv.train(), bn)


def test_padding_and_shuffling_layers():
    x = gf.arange(6.0).reshape(1, 2, 3)
    np.testing.assert_array_equal(nn.ReflectionPad1d(2)(x)[0, 0], [2, 1, 0, 1, 2, 1, 0])
    np.testing.assert_array_equal(nn.ReplicationPad1d((1, 2))(x)[0, 1], [3, 3, 4, 5, 5, 5])
    np.testing.assert_array_equal(nn.CircularPad1d((1, 2))(x)[0, 0], [2, 0, 1, 2, 0, 1])
    np.testing.assert_array_equal(nn.ConstantPad1d((0, 1), 9.0)(x)[0, 0], [0, 1, 2, 9])
    assert nn.ZeroPad2d((1, 2, 3, 4))(gf.ones(1, 1, 5, 5)).shape == (1, 1, 12, 8)
    image = ramp(1, 8, 2, 3)
    large = nn.PixelShuffle(2)(image)
    assert large.shape == (1, 2, 4, 6)
    np.testing.assert_array_equal(nn.PixelUnshuffle(2)(large), image)
    np.testing.assert_array_equal(
        nn.ChannelShuffle(2)(gf.arange(4.0).reshape(1, 4, 1)).flatten(), [0, 2, 1, 3]
    )
    assert repr(nn.ZeroPad2d(2)) == "ZeroPad2d((2, 2, 2, 2))"
    assert repr(nn.ConstantPad1d((1, 2), 3.5)) == "ConstantPad1d(padding=(1, 2), value=3.5)"
    a, b = ramp(4, 3), ramp(4, 3, offset=1.0)
    cosine = (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1))
    np.testing.assert_allclose(nn.CosineSimilarity()(a, b), cosine, rtol=1e-5)
    expected = np.abs(a.numpy() - b.numpy() + 1e-6).sum(1, keepdims=True)
    np.testing.assert_allclose(nn.PairwiseDistance(1, keepdim=True)(a, b), expected, rtol=1e-5)


def test_batch_norms_are_folded_into_linear_layers() -> None:
    gf.manual_seed(3)
    for features in (3, 1):
        linear, norm = nn.Linear(4, 3).eval(), nn.BatchNorm1d(features).eval()
        with gf.no_grad():
            for tensor in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
                tensor.copy_(gf.rand(features) + 0.5)
        x = gf.randn(5, 4)
        wide = norm(linear(x)) if features == 3 else norm(linear(x).unsqueeze(1)).squeeze(1)
        fused = nn.utils.fuse_linear_bn_eval(linear, norm)
        np.testing.assert_allclose(fused(x).detach().numpy(), wide.detach().numpy(), 1e-5, 1e-6)
    with pytest.raises(ValueError, match="evaluation"):
        nn.utils.fuse_linear_bn_eval(linear.train(), norm)
    with pytest.raises(ValueError, match="num_features"):
        nn.utils.fuse_linear_bn_eval(nn.Linear(2, 4).eval(), nn.BatchNorm1d(3).eval())


def test_older_names_of_initialisers_warn() -> None:
    with pytest.warns(FutureWarning, match="xavier_uniform_"):
        function = nn.init.xavier_uniform
    assert function is nn.init.xavier_uniform_
    with pytest.raises(AttributeError):
        nn.init.no_such_thing  # noqa: B018
