"""Functions and gradient rules that make tensors of their own, eagerly on a device.

Run by ``tests/test_cuda.py`` in the simulator; ``python -m tests.cudasim.samples`` tries
every function of PyTorch's database.
"""

from __future__ import annotations

import pathlib
from collections.abc import Callable

import numpy as np
import pytest

import graphflow as gf
import graphflow.nn.functional as F
from graphflow import nn, pytree

rng = np.random.default_rng(0)
X = rng.standard_normal((4, 4)).astype(np.float32)
IMAGE = X.reshape(1, 1, 4, 4)

CALLS: dict[str, Callable[[gf.Tensor], gf.Tensor]] = {
    "index by lists": lambda x: x[[0, 2], [1, 3]],
    "index by a tensor of the CPU": lambda x: x[gf.tensor([2, 0])],
    "index by a mask": lambda x: x[x > 0],
    "rows of a table": lambda x: F.embedding(gf.tensor([1, 1, 3]).to(x.device), x),
    "sorted": lambda x: x.sort(1).values,
    "largest of rows": lambda x: x.max(1).values,
    "part": lambda x: x[1:3, ::2],
    "tril": lambda x: gf.tril(x),
    "diagonals": lambda x: gf.diag_embed(x),
    "inverse": lambda x: gf.linalg.inv(x),
    "class weights": lambda x: F.multi_margin_loss(x, gf.tensor([0, 1, 2, 3]).to(x.device)),
    "targets": lambda x: F.nll_loss(x, gf.tensor([0, 1, 2, -100]).to(x.device)),
    "pooled": lambda x: F.avg_pool2d(x.reshape(1, 1, 4, 4), 2),
    "adaptively pooled": lambda x: F.adaptive_avg_pool2d(x.reshape(1, 1, 4, 4), 3),
    "largest of windows": lambda x: F.max_pool2d(x.reshape(1, 1, 4, 4), 3, 1, ceil_mode=True),
    "resized": lambda x: F.interpolate(x.reshape(1, 1, 4, 4), scale_factor=1.5, mode="bilinear"),
    "scattered": lambda x: x.scatter_reduce(
        0, gf.zeros(1, 4, dtype=gf.int64, device=x.device), x[:1] * 2, "amax", include_self=False
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_functions_and_their_gradients_agree_with_the_cpu(name: str) -> None:
    found = []
    for device in ("cpu", "cuda"):
        x = gf.tensor(X).to(device).requires_grad_()
        y = CALLS[name](x)
        (y * y).sum().backward()
        assert y.device.type == x.grad.device.type == device
        found.append((y.detach().cpu().numpy(), x.grad.cpu().numpy()))
    for here, there in zip(*found, strict=True):
        np.testing.assert_allclose(here, there, 1e-4, 1e-5)


RANDOM: dict[str, Callable[[gf.Tensor], gf.Tensor]] = {
    "dropout": lambda x: F.dropout(x, 0.5),
    "channels dropped": lambda x: F.dropout2d(x.reshape(1, 4, 2, 2), 0.5),
    "bernoulli": lambda x: gf.bernoulli(x.sigmoid()),
    "normal": lambda x: gf.normal(x, 1.0),
    "multinomial": lambda x: gf.multinomial(x.exp(), 2),
    "gumbel_softmax": lambda x: F.gumbel_softmax(x),
    "randint_like": lambda x: gf.randint_like(x, 5),
    "randperm": lambda x: gf.randperm(5, device=x.device),
}


@pytest.mark.parametrize("name", RANDOM)
def test_random_functions_draw_the_numbers_of_the_cpu(name: str) -> None:
    found = []
    for device in ("cpu", "cuda"):
        gf.manual_seed(5)
        made = RANDOM[name](gf.tensor(X).to(device))
        assert made.device.type == device
        found.append(made.cpu().numpy())
    np.testing.assert_allclose(*found, 1e-5, 1e-6)


@pytest.mark.parametrize("extent", [20, 300])
def test_rows_near_and_far_from_zero_are_normalised(extent: int) -> None:
    """Some blocks make the pass around the mean, some do not."""
    x = np.random.default_rng(2).standard_normal((5, extent)).astype(np.float32)
    x[1] += 1e3
    x[3] = 4
    normalised = gf.compile(lambda x: F.layer_norm(x, (extent,)))
    here, there = (normalised(gf.tensor(x).to(d)).cpu().numpy() for d in ("cpu", "cuda"))
    np.testing.assert_allclose(here, there, atol=1e-3)
    np.testing.assert_allclose(here[::2], there[::2], atol=1e-5)
    assert (there[3] == 0).all()


def test_recurrent_layers_begin_with_zeros_on_the_device() -> None:
    gf.manual_seed(0)
    layer = nn.LSTM(4, 2)
    here = layer(gf.tensor(X))[0].detach().numpy()
    there = layer.cuda()(gf.tensor(X).cuda())[0]
    np.testing.assert_allclose(here, there.detach().cpu().numpy(), 1e-5, 1e-6)


def test_what_a_user_makes_stays_on_the_cpu() -> None:
    x = gf.tensor(X).cuda()
    assert not gf.arange(4).is_cuda and not gf.zeros(4).is_cuda
    with pytest.raises(gf.GraphFlowError, match="all on one device"):
        x + gf.arange(4)


def test_models_on_a_device_are_exported(tmp_path: pathlib.Path) -> None:
    pytest.importorskip("onnx")
    from graphflow import onnx

    gf.manual_seed(0)
    model, x = gf.nn.Sequential(gf.nn.Linear(4, 8), gf.nn.ReLU(), gf.nn.Linear(8, 2)), gf.rand(3, 4)
    wanted = model(x).tolist()
    step = gf.compile(model.cuda())
    step(x.cuda())
    for number, target in enumerate((model, step.latest.program)):
        path = tmp_path / f"{number}.onnx"
        onnx.export(target, (x.cuda(),), path)
        found = pytree.flatten(onnx.load(path)(x))[0][0]  # what a backward pass needs follows
        np.testing.assert_allclose(found.tolist(), wanted, rtol=1e-5)
