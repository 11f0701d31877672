"""Layers as modules: arguments, state, printing, statistics; embeddings."""

import copy

import numpy as np
import pytest

import graphflow as gf
from graphflow import nn, optim
from graphflow.nn import functional as F
from tests.front import agree, ramp, training_step

rng = np.random.default_rng(31)

PRINTED = {  # recorded from PyTorch 2.13
    "Hardtanh(min_val=-1.0, max_val=1.0)": lambda: nn.Hardtanh(),
    "ReLU6(inplace=True)": lambda: nn.ReLU6(True),
    "LeakyReLU(negative_slope=0.1, inplace=True)": lambda: nn.LeakyReLU(0.1, True),
    "RReLU(lower=0.125, upper=0.3333333333333333)": lambda: nn.RReLU(),
    "PReLU(num_parameters=3)": lambda: nn.PReLU(3),
    "ELU(alpha=1.0)": lambda: nn.ELU(),
    "Hardswish()": lambda: nn.Hardswish(inplace=True),
    "GELU(approximate='tanh')": lambda: nn.GELU("tanh"),
    "Softplus(beta=1.0, threshold=20.0)": lambda: nn.Softplus(),
    "Softshrink(0.5)": lambda: nn.Softshrink(),
    "Threshold(threshold=0.1, value=20)": lambda: nn.Threshold(0.1, 20),
    "GLU(dim=-1)": lambda: nn.GLU(),
    "Softmax(dim=1)": lambda: nn.Softmax(1),
    "Softmax2d()": lambda: nn.Softmax2d(),
    "Dropout2d(p=0.5, inplace=False)": lambda: nn.Dropout2d(),
    "BatchNorm1d(4, eps=1e-05, momentum=0.1, affine=True, bias=True, track_running_stats=True)": (
        lambda: nn.BatchNorm1d(4)
    ),
    "InstanceNorm2d(4, eps=1e-05, momentum=0.1, affine=False, bias=False, "
    "track_running_stats=False)": (lambda: nn.InstanceNorm2d(4)),
    "GroupNorm(2, 4, eps=1e-05, affine=True, bias=True)": lambda: nn.GroupNorm(2, 4),
    "LayerNorm((4,), eps=1e-05, elementwise_affine=True, bias=False)": (
        lambda: nn.LayerNorm(4, bias=False)
    ),
    "RMSNorm((4,), eps=None, elementwise_affine=True)": lambda: nn.RMSNorm(4),
    "LocalResponseNorm(2, alpha=0.0001, beta=0.75, k=1.0)": lambda: nn.LocalResponseNorm(2),
    "Embedding(5, 3, padding_idx=4, max_norm=1.0)": lambda: nn.Embedding(5, 3, -1, 1.0),
    "EmbeddingBag(5, 3, mode='mean')": lambda: nn.EmbeddingBag(5, 3),
    "Bilinear(in1_features=2, in2_features=3, out_features=4, bias=True)": (
        lambda: nn.Bilinear(2, 3, 4)
    ),
    "CrossEntropyLoss()": lambda: nn.CrossEntropyLoss(),
    "Unflatten(dim=1, unflattened_size=(2, 3))": lambda: nn.Unflatten(1, (2, 3)),
}


@pytest.mark.parametrize("text", PRINTED)
def test_layers_print_as_in_pytorch(text):
    assert repr(PRINTED[text]()) == text


def test_states_have_pytorchs_names():
    bn = nn.BatchNorm2d(3)
    assert list(bn.state_dict()) == [
        "weight", "bias", "running_mean", "running_var", "num_batches_tracked"
    ]  # fmt: skip
    assert bn.state_dict()["num_batches_tracked"].dtype is gf.int64
    assert list(nn.BatchNorm1d(3, affine=False, track_running_stats=False).state_dict()) == []
    assert list(nn.LayerNorm(3, bias=False).state_dict()) == ["weight"]
    assert list(nn.CrossEntropyLoss(gf.ones(3)).state_dict()) == ["weight"]
    older = {k: v for k, v in bn.state_dict().items() if k != "num_batches_tracked"}
    bn.load_state_dict(older)  # a state from before batches were counted


@pytest.mark.parametrize("momentum", [0.3, None])
def test_batch_norm_statistics_move_alike_compiled(momentum):
    def program(jit):
        layer = nn.BatchNorm1d(4, momentum=momentum)
        opt = optim.SGD(layer.parameters(), lr=0.1)
        step = training_step(layer, opt, jit, lambda out: (out * out * ramp(6, 4)).mean())
        losses = [step(ramp(6, 4, offset=i)) for i in range(3)]
        layer.eval()
        return [*losses, layer(ramp(6, 4)), *layer.state_dict().values()]

    found = agree(program, atol=3e-6)
    batches = [ramp(6, 4, offset=i).numpy() for i in range(3)]
    mean = np.zeros(4)
    for i, batch in enumerate(batches):
        share = momentum or 1 / (i + 1)
        mean = (1 - share) * mean + share * batch.mean(0)
    np.testing.assert_allclose(found[6], mean, atol=1e-6)
    assert found[-1] == 3


def test_batch_norm_uses_what_it_should():
    x = gf.tensor(rng.normal(3, 2, (8, 3)), dtype=gf.float32)
    without = nn.BatchNorm1d(3, track_running_stats=False).eval()
    assert abs(without(x).detach().numpy().mean()) < 1e-6  # no statistics: the batch's
    layer = nn.BatchNorm1d(3)
    layer(x)
    before = copy.deepcopy(layer.state_dict())
    layer.eval()(x)
    assert gf.equal(layer.running_mean, before["running_mean"])
    layer.reset_running_stats()
    assert layer.running_var.sum().item() == 3 and layer.num_batches_tracked.item() == 0
    layer.train().track_running_stats = False
    layer(x)
    assert layer.running_var.sum().item() == 3 and layer.num_batches_tracked.item() == 0
    for wrong in (gf.ones(3), gf.ones(2, 3, 4, 5)):
        with pytest.raises(ValueError, match="expected 2D or 3D"):
            layer(wrong)


def test_instance_norm_takes_single_samples():
    x = gf.tensor(rng.normal(size=(3, 5)), dtype=gf.float32)
    layer = nn.InstanceNorm1d(3, affine=True, track_running_stats=True)
    np.testing.assert_allclose(
        layer(x).detach(), layer(x.unsqueeze(0))[0].detach(), rtol=1e-6, atol=1e-6
    )
    layer.eval()
    out = layer(x)
    expected = (x.numpy() - layer.running_mean.numpy()[:, None]) / np.sqrt(
        layer.running_var.numpy()[:, None] + 1e-5
    )
    np.testing.assert_allclose(out.detach(), expected, rtol=1e-5)


def test_bilinear():
    layer = nn.Bilinear(2, 3, 4)
    a, b = ramp(5, 2), ramp(5, 3, offset=1.0)
    w, c = layer.weight.detach().numpy(), layer.bias.detach().numpy()
    expected = np.einsum("ni,kij,nj->nk", a.numpy(), w, b.numpy()) + c
    np.testing.assert_allclose(layer(a, b).detach(), expected, rtol=1e-5, atol=1e-6)
    with pytest.raises(gf.ShapeError, match="bilinear"):
        layer(a, a)


def test_every_loss_module_is_its_function():
    x, y = ramp(4, 3), ramp(4, 3, offset=0.5)
    classes, signs = gf.tensor([0, 2, 1, 1]), gf.tensor([1, -1, 1, -1])
    pairs = [
        (nn.HuberLoss(delta=0.5)(x, y), F.huber_loss(x, y, delta=0.5)),
        (nn.SmoothL1Loss(beta=0.5)(x, y), F.smooth_l1_loss(x, y, beta=0.5)),
        (nn.KLDivLoss(reduction="batchmean", log_target=True)(x, y),
         F.kl_div(x, y, reduction="batchmean", log_target=True)),
        (nn.PoissonNLLLoss(full=True)(x, y), F.poisson_nll_loss(x, y, full=True)),
        (nn.GaussianNLLLoss(full=True)(x, y, 1.5), F.gaussian_nll_loss(x, y, 1.5, full=True)),
        (nn.HingeEmbeddingLoss(0.5)(x, y), F.hinge_embedding_loss(x, y, 0.5)),
        (nn.CosineEmbeddingLoss(0.1)(x, y, signs), F.cosine_embedding_loss(x, y, signs, 0.1)),
        (nn.MultiMarginLoss(2)(x, classes), F.multi_margin_loss(x, classes, 2)),
        (nn.MultiLabelSoftMarginLoss()(x, y), F.multilabel_soft_margin_loss(x, y)),
        (nn.TripletMarginLoss(p=1)(x, y, x), F.triplet_margin_loss(x, y, x, p=1)),
        (nn.NLLLoss(gf.ones(3), ignore_index=1)(x, classes),
         F.nll_loss(x, classes, gf.ones(3), ignore_index=1)),
        (nn.CrossEntropyLoss(label_smoothing=0.1, reduction="sum")(x, classes),
         F.cross_entropy(x, classes, reduction="sum", label_smoothing=0.1)),
    ]  # fmt: skip
    for got, expected in pairs:
        assert got.item() == expected.item()


# ---- tables ------------------------------------------------------------------------------


def test_embedding_gradients_skip_padding_and_count():
    def program(jit):
        grads = []
        for options in ({}, {"padding_idx": 2}, {"scale_grad_by_freq": True}):
            layer = nn.Embedding.from_pretrained(ramp(5, 3), freeze=False, **options)

            def step(index, layer=layer):
                (layer(index) * ramp(2, 3, 3)).sum().backward()
                return layer.weight.grad

            keep = {"keep_grads": True} if jit is gf.compile else {}
            grads.append(jit(step, **keep)(gf.tensor([[0, 2, 2], [4, 2, 0]])))
        return grads

    plain, padded, scaled = agree(program)
    up = ramp(2, 3, 3).numpy()
    expected = np.zeros((5, 3))
    np.add.at(expected, [[0, 2, 2], [4, 2, 0]], up)
    np.testing.assert_allclose(plain, expected, rtol=1e-5)
    np.testing.assert_allclose(scaled, expected / [[2], [1], [3], [1], [1]], rtol=1e-5)
    expected[2] = 0
    np.testing.assert_allclose(padded, expected, rtol=1e-5)


def test_embedding_options():
    layer = nn.Embedding(6, 4, padding_idx=-1)
    assert layer.padding_idx == 5 and layer.weight[5].abs().sum().item() == 0
    frozen = nn.Embedding.from_pretrained(gf.ones(3, 2))
    assert not frozen.weight.requires_grad
    table = gf.tensor([[3.0, 4.0], [6.0, 8.0], [0.3, 0.4]])
    out = F.embedding(gf.tensor([1, 2]), table, max_norm=1.0)
    np.testing.assert_allclose(out, [[0.6, 0.8], [0.3, 0.4]], rtol=1e-5)
    np.testing.assert_allclose(table[0], [3, 4])  # not looked up: not shortened
    with pytest.warns(UserWarning, match="sparse"):
        F.embedding(gf.tensor([0]), table, sparse=True)
    with pytest.raises(gf.GraphFlowError, match="out of range"):
        F.embedding(gf.tensor([3]), table)
    with pytest.raises(TypeError, match="integer"):
        F.embedding(gf.tensor([0.5]), table)


BAGS = [[0, 3, 3], [], [2], [4, 1]]


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
@pytest.mark.parametrize("padding", [None, 3])
def test_embedding_bag_against_a_loop(mode, padding):
    table = rng.normal(size=(5, 4))
    flat = np.concatenate([np.array(b, int) for b in BAGS])
    offsets = np.cumsum([0, *map(len, BAGS)])
    fold = {"sum": np.sum, "mean": np.mean, "max": np.max}[mode]
    expected = np.zeros((4, 4))
    for i, bag in enumerate(BAGS):
        rows = [table[j] for j in bag if j != padding]
        if rows:
            expected[i] = fold(rows, axis=0)

    def program(jit):
        def run(index, weight, starts):
            return F.embedding_bag(
                index, weight, starts, mode=mode, padding_idx=padding, include_last_offset=True
            )

        return jit(run)(gf.tensor(flat), gf.tensor(table), gf.tensor(offsets))

    np.testing.assert_allclose(agree(program)[0], expected, rtol=1e-9)
    even = np.array([[0, 3], [2, 1]])
    rows = [[table[j] for j in bag if j != padding] for bag in even]
    got = F.embedding_bag(gf.tensor(even), gf.tensor(table), mode=mode, padding_idx=padding)
    np.testing.assert_allclose(got, [fold(r, axis=0) for r in rows])


def test_embedding_bag_weights_and_bad_input():
    table, weights = rng.normal(size=(5, 4)), gf.tensor([[0.5, 2.0]], dtype=gf.float64)
    weights.requires_grad_()
    out = F.embedding_bag(gf.tensor([[1, 3]]), gf.tensor(table), mode="sum",
                          per_sample_weights=weights)  # fmt: skip
    np.testing.assert_allclose(out.detach()[0], table[1] * 0.5 + table[3] * 2)
    out.sum().backward()
    np.testing.assert_allclose(weights.grad[0], table[[1, 3]].sum(1))
    with pytest.raises(NotImplementedError, match="mode='sum'"):
        F.embedding_bag(gf.tensor([[1, 3]]), gf.tensor(table), per_sample_weights=weights)
    with pytest.raises(ValueError, match="offsets"):
        F.embedding_bag(gf.tensor([1, 3]), gf.tensor(table))
