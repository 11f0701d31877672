"""What scripts written for PyTorch's quantisation name: tables, cells, FX mode, addresses."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

import graphflow as gf
from graphflow import nn, quantization

SEED = 4
ROOT = pathlib.Path(__file__).parent.parent


def _normal(*shape: int) -> gf.Tensor:
    return gf.tensor(np.random.default_rng(SEED).standard_normal(shape).astype(np.float32))


# ---- tables ----------------------------------------------------------------------------


def _rounded(weight: np.ndarray) -> np.ndarray:
    """PyTorch's rows: 255 steps from the least to the greatest number, in NumPy."""
    low = weight.min(1, keepdims=True).astype(np.float64)
    scale = np.maximum(weight.max(1, keepdims=True) - low, 1e-6) / 255
    return np.round((weight - low) / scale) * scale + low


@pytest.mark.parametrize("compiled", [False, True])
def test_embeddings(compiled: bool) -> None:
    """A quarter of the bytes; rows are what their integers stand for."""
    gf.manual_seed(SEED)
    layer = nn.Embedding(30, 16)
    config = quantization.float_qparams_weight_only_qconfig
    model = quantization.quantize_dynamic(nn.Sequential(layer), {nn.Embedding: config})
    assert model[0].weight.dtype is gf.uint8
    wanted = _rounded(layer.weight.numpy(force=True))
    for shape in ((7,), (2, 3), ()):
        index = gf.tensor(np.random.default_rng(SEED).integers(0, 30, shape))
        run = gf.compile(model) if compiled else model
        np.testing.assert_allclose(run(index).numpy(), wanted[index.numpy()], atol=1e-5)


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
def test_bags_of_embeddings(mode: str) -> None:
    """As those of a float table of the same numbers; with offsets, and what is left out."""
    gf.manual_seed(SEED)
    layer = nn.EmbeddingBag(20, 8, mode=mode, padding_idx=3, include_last_offset=True)
    model = quantization.quantize_dynamic(nn.Sequential(layer), dtype=gf.quint8)[0]
    rounded = _rounded(layer.weight.numpy(force=True)).astype(np.float32)
    same = nn.EmbeddingBag.from_pretrained(
        gf.tensor(rounded), mode=mode, padding_idx=3, include_last_offset=True
    )
    index = gf.tensor([3, 1, 5, 3, 3, 7, 19, 0])
    offsets = gf.tensor([0, 3, 5, 8])
    np.testing.assert_allclose(model(index, offsets), same(index, offsets), atol=1e-5)
    np.testing.assert_allclose(model(index[None]), same(index[None]), atol=1e-5)


def test_tables_become_integers_by_their_own_configuration() -> None:
    """A configuration for layers above them leaves tables as they are."""
    model = nn.Sequential(nn.Embedding(5, 4), nn.Embedding(5, 4), nn.Linear(4, 2)).eval()
    model.qconfig = quantization.default_qconfig
    model[1].qconfig = quantization.float_qparams_weight_only_qconfig
    prepared = quantization.prepare(model)
    prepared[2](_normal(3, 4))
    made = quantization.convert(prepared)
    assert type(made[0]) is nn.Embedding
    assert isinstance(made[1], nn.quantized.Embedding)
    assert isinstance(made[2], nn.quantized.Linear)
    with pytest.raises(ValueError, match="float_qparams_weight_only_qconfig"):
        quantization.quantize_dynamic(model, {nn.Embedding})


# ---- cells, sums -----------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["LSTMCell", "GRUCell", "RNNCell"])
def test_cells(kind: str) -> None:
    """Near the cell of numbers, step after step; a state dict goes from one to another."""
    gf.manual_seed(SEED)
    options = {"nonlinearity": "relu"} if kind == "RNNCell" else {}
    cell, other = (getattr(nn, kind)(12, 8, **options) for _ in range(2))
    first, second = (quantization.quantize_dynamic(nn.Sequential(c))[0] for c in (cell, other))
    assert isinstance(first, getattr(nn.quantized.dynamic, kind))
    second.load_state_dict(first.state_dict())
    x, exact, found, copied = _normal(3, 12), None, None, None
    for _ in range(3):
        exact, found, copied = cell(x, exact), first(x, found), second(x, copied)
    h, near, again = (s[0] if isinstance(s, tuple) else s for s in (exact, found, copied))
    assert 0 < np.abs(near.numpy() - h.numpy(force=True)).max() < 0.03
    np.testing.assert_array_equal(near.numpy(), again.numpy())


class Block(nn.Module):
    """A sum of two branches; norms are named before the layers that they follow."""

    def __init__(self, twice: bool = False) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(4)
        self.conv = nn.Conv2d(4, 4, 3, padding=1, bias=False)
        self.other = nn.Conv2d(4, 4, 1)
        self.add = nn.quantized.FloatFunctional()
        self.twice = twice

    def forward(self, x: gf.Tensor) -> gf.Tensor:
        y = self.conv(x)
        normal = self.bn(y)
        return self.add.add_relu(normal, self.other(y if self.twice else x))


def _block(twice: bool = False) -> tuple[Block, gf.Tensor]:
    gf.manual_seed(SEED)
    block, x = Block(twice), _normal(8, 4, 6, 6)
    for _ in range(20):
        block(x)
    return block.eval(), x


def test_sums_and_products_as_a_module() -> None:
    own, a, b = nn.quantized.FloatFunctional(), _normal(2, 2), gf.tensor([[1.0, -9.0], [0.5, 2.0]])
    results = (own.add(a, b), own.mul(a, b), own.matmul(a, b), own.add_relu(a, b),
               own.add_scalar(a, 2), own.mul_scalar(a, 3), own.cat([a, b], 1))  # fmt: skip
    x, y = a.numpy(), b.numpy()
    wanted = (x + y, x * y, x @ y, np.maximum(x + y, 0), x + 2, x * 3, np.hstack([x, y]))
    for found, number in zip(results, wanted, strict=True):
        np.testing.assert_allclose(found.numpy(), number, rtol=1e-6)
    with pytest.raises(RuntimeError, match="FloatFunctional is no layer: call its add"):
        own(a)


# ---- FX mode ---------------------------------------------------------------------------


def test_norms_are_found_by_running_the_model() -> None:
    block, x = _block()
    exact = block(x).detach()
    mapping = quantization.get_default_qconfig_mapping("x86")
    prepared = quantization.quantize_fx.prepare_fx(block, mapping, (x,))
    assert type(prepared.bn) is nn.Identity and type(block.bn) is nn.BatchNorm2d
    prepared(x)
    made = quantization.quantize_fx.convert_fx(prepared)
    assert isinstance(made.conv, nn.quantized.Conv2d)
    assert isinstance(made.other, nn.quantized.Conv2d)
    assert 0 < (made(x) - exact).abs().max().item() < 0.03 * exact.abs().max().item()


def test_a_layer_that_something_else_reads_is_not_folded() -> None:
    block, x = _block(twice=True)
    with pytest.raises(gf.GraphFlowError, match=r"something besides the norm.*conv\+bn"):
        quantization.quantize_fx.fuse_fx(block, (x,))
    with pytest.raises(gf.GraphFlowError, match=r"eval\(\)"):
        quantization.quantize_fx.fuse_fx(block.train(), (x,))


def test_which_configuration_counts() -> None:
    """A name, or that of a module above; then a pattern, a type, and what is for all."""
    one, two, three, four = (quantization.QConfig(k, k) for k in range(4))
    model = nn.Sequential(nn.Sequential(nn.Linear(1, 1), nn.ReLU()), nn.Linear(1, 1), nn.ReLU(),
                          nn.Tanh())  # fmt: skip
    mapping = (
        quantization.QConfigMapping().set_global(one).set_object_type(nn.Linear, two)
        .set_object_type(nn.ReLU, two).set_module_name_regex("[01]", three)
        .set_module_name("0", four)
    )  # fmt: skip
    mapping.apply_to(model)
    given = {name: getattr(m, "qconfig", None) for name, m in model.named_modules()}
    assert given == {"": one, "0": four, "0.0": None, "0.1": None, "1": three, "2": two, "3": None}
    untouched = quantization.QConfigMapping().set_module_name("1", None).set_global(one)
    untouched.apply_to(model)
    assert model[1].qconfig is None


def test_training_with_norms_frozen() -> None:
    block, x = _block()
    mapping = quantization.get_default_qat_qconfig_mapping("x86")
    model = quantization.quantize_fx.prepare_qat_fx(block.train(), mapping, (x,))
    before = model.bn.running_mean.tolist()
    model.apply(nn.intrinsic.qat.freeze_bn_stats)
    model(x).sum().backward()
    assert model.bn.running_mean.tolist() == before and isinstance(model.conv, nn.qat.Conv2d)
    model.apply(nn.intrinsic.qat.update_bn_stats)
    model(x)
    assert model.bn.running_mean.tolist() != before


def test_ranges_that_are_given() -> None:
    observer = quantization.default_fixed_qparams_range_neg1to1_observer()
    observer(_normal(4))
    scale, zero = observer.calculate_qparams()
    assert (scale.item(), zero.item(), observer.dtype) == (1 / 128, 128, gf.uint8)
    narrow = quantization.weight_observer_range_neg_127_to_127()
    narrow(gf.tensor([-1.27, 0.5]))
    assert narrow.calculate_qparams()[0].item() == pytest.approx(0.01)


# ---- addresses -------------------------------------------------------------------------

SCRIPT = """
import torch
import torch.quantization
from torch import nn
from torch.ao.nn.quantized import FloatFunctional
from torch.ao.quantization import QConfigMapping, fuse_modules_qat, get_default_qconfig
from torch.ao.quantization.observer import MinMaxObserver
from torch.ao.quantization.quantize_fx import convert_fx, prepare_fx

torch.backends.quantized.engine = "x86"
model = nn.Sequential(nn.Linear(4, 4), nn.ReLU()).eval()
x = torch.randn(8, 4)
qconfig = torch.ao.quantization.QConfig(
    activation=MinMaxObserver.with_args(dtype=torch.quint8, qscheme=torch.per_tensor_affine),
    weight=MinMaxObserver.with_args(dtype=torch.qint8, qscheme=torch.per_tensor_symmetric),
)
prepared = prepare_fx(model, QConfigMapping().set_global(qconfig), (x,))
prepared(x)
made = convert_fx(prepared)
assert isinstance(made[0], torch.ao.nn.quantized.Linear) and made[0] is not model[0]
assert torch.ao.quantization.QConfig is torch.quantization.QConfig
assert torch.nn.quantized.FloatFunctional is FloatFunctional
print(float((made(x) - model(x)).abs().max()) < 0.1)
"""


def test_a_script_of_pytorch(tmp_path: pathlib.Path) -> None:
    """Both addresses, the newer one under ``ao``, are the same modules."""
    (tmp_path / "script.py").write_text(SCRIPT)
    ran: Any = subprocess.run(
        [sys.executable, "-m", "graphflow", "run", "script.py"], cwd=tmp_path, text=True,
        capture_output=True, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False,
    )  # fmt: skip
    assert (ran.returncode, ran.stdout.strip()) == (0, "True"), ran.stderr
