"""Quantisation: its arithmetic beside NumPy, observers, conversion, training, state."""

from __future__ import annotations

import numpy as np
import pytest

import graphflow as gf
from graphflow import nn, quantization

SEED = 8


def _normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(SEED).standard_normal(shape).astype(np.float32)


class Net(nn.Module):
    """A convolution with a norm, one with a stride, and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 8, 3, stride=2, padding=1, groups=2)
        self.fc = nn.Linear(8 * 3 * 3, 5)

    def forward(self, x: gf.Tensor) -> gf.Tensor:
        x = self.bn1(self.conv1(x)).relu()
        return self.fc(self.conv2(x).relu().flatten(1))


def _net() -> Net:
    gf.manual_seed(SEED)
    net = Net().eval()
    net.bn1.running_mean.copy_(gf.tensor(_normal(8) * 0.1))
    return net


# ---- arithmetic ------------------------------------------------------------------------


def test_quantising_rounds_to_even_and_clips() -> None:
    x = gf.tensor([-9.0, -0.75, -0.25, 0.0, 0.25, 0.75, 1.25, 400.0])
    whole = gf.quantize_per_tensor(x, 0.5, 3, gf.int8)
    assert whole.tolist() == [-15, 1, 3, 3, 3, 5, 5, 127]
    assert whole.dtype is gf.int8
    assert gf.quantize_per_tensor(x, 0.5, 3, gf.quint8).tolist() == [0, 1, 3, 3, 3, 5, 5, 255]
    numbers = gf.dequantize_per_tensor(whole, 0.5, 3)
    assert numbers.tolist() == [-9.0, -1.0, 0.0, 0.0, 0.0, 1.0, 1.0, 62.0]


@pytest.mark.parametrize("compiled", [False, True])
def test_channels_have_scales_of_their_own(compiled: bool) -> None:
    x = _normal(4, 3, 5)
    scales = np.array([0.1, 0.02, 0.5], np.float32)
    zeros = np.array([0, 5, -7], np.int32)

    def there_and_back(x: gf.Tensor, scales: gf.Tensor, zeros: gf.Tensor) -> gf.Tensor:
        whole = gf.quantize_per_channel(x, scales, zeros, 1, gf.int8)
        return gf.dequantize_per_channel(whole, scales, zeros, 1)

    run = gf.compile(there_and_back) if compiled else there_and_back
    found = run(*map(gf.tensor, (x, scales, zeros))).numpy()
    s, z = scales[:, None], zeros[:, None]
    whole = np.clip(np.round(x * (np.float32(1) / s)) + z, -128, 127)
    np.testing.assert_allclose(found, (whole - z) * s, rtol=1e-6)
    fake = gf.fake_quantize_per_channel_affine(*map(gf.tensor, (x, scales, zeros)), 1, -128, 127)
    np.testing.assert_allclose(fake.numpy(), found, rtol=1e-6)


def test_gradient_passes_inside_the_range_only() -> None:
    x = gf.tensor([-2.0, -1.3, 0.2, 1.2, 1.4, 3.0], requires_grad=True)
    gf.fake_quantize_per_tensor_affine(x, 0.01, 0, -128, 127).sum().backward()
    assert x.grad.tolist() == [0.0, 0.0, 1.0, 1.0, 0.0, 0.0]


def test_bad_input_is_named() -> None:
    x = gf.ones(2, 3)
    with pytest.raises(gf.DTypeError, match="quantize_per_tensor"):
        gf.quantize_per_tensor(x, 1.0, 0, gf.float32)
    with pytest.raises(gf.DTypeError, match="must be a float tensor"):
        gf.quantize_per_tensor(gf.ones(2, dtype=gf.int32), 1.0, 0, gf.int8)
    with pytest.raises(gf.ShapeError, match="wants 3 scales"):
        gf.quantize_per_channel(x, gf.ones(2), gf.zeros(2), 1, gf.int8)
    with pytest.raises(ValueError, match="quant_min"):
        gf.fake_quantize_per_tensor_affine(x, 1.0, 0, 5, 4)
    with pytest.raises(ValueError, match="must be int8"):
        quantization.quantize_dynamic(nn.Linear(2, 2), dtype=gf.float16)


# ---- observers -------------------------------------------------------------------------


def test_least_and_greatest() -> None:
    """Scale and zero point of the range seen, which holds zero."""
    observer = quantization.MinMaxObserver(dtype=gf.quint8)
    for low, high in ((0.5, 1.0), (0.25, 3.0)):
        observer(gf.tensor([low, high]))
    scale, zero = observer.calculate_qparams()
    assert scale.item() == pytest.approx(3 / 255) and zero.item() == 0
    symmetric = quantization.default_weight_observer()
    symmetric(gf.tensor([-2.0, 1.0]))
    scale, zero = symmetric.calculate_qparams()
    assert scale.item() == pytest.approx(2 / 127.5) and zero.item() == 0


def test_moving_averages_begin_with_the_first_range() -> None:
    observer = quantization.MovingAverageMinMaxObserver(averaging_constant=0.25)
    for high in (4.0, 8.0):
        observer(gf.tensor([-1.0, high]))
    assert observer.max_val.item() == 5.0 and observer.min_val.item() == -1.0
    channels = quantization.MovingAveragePerChannelMinMaxObserver(
        averaging_constant=0.5, dtype=gf.qint8, qscheme=quantization.per_channel_symmetric
    )
    for high in (1.0, 3.0):
        channels(gf.tensor([[-1.0, high], [0.0, 2 * high]]))
    assert channels.max_val.tolist() == [2.0, 4.0]


def test_histograms_leave_out_what_is_rare() -> None:
    """Of many small numbers and a single large one the range is clipped, and errors are less."""
    x = np.append(np.random.default_rng(SEED).standard_normal(1_000_000), 30.0).astype(np.float32)
    errors = []
    for kind in (quantization.HistogramObserver, quantization.MinMaxObserver):
        observer = kind(dtype=gf.qint8)
        for part in np.array_split(x, 4):
            observer(gf.tensor(part))
        scale, zero = (each.item() for each in observer.calculate_qparams())
        back = (np.clip(np.round(x / scale) + zero, -128, 127) - zero) * scale
        errors.append(((back - x) ** 2).mean())
    assert errors[0] < errors[1] / 2


# ---- models ----------------------------------------------------------------------------


def _converted(net: Net, x: gf.Tensor) -> nn.Module:
    net.qconfig = quantization.get_default_qconfig("x86")
    fused = quantization.fuse_modules(net, [["conv1", "bn1"]])
    prepared = quantization.prepare(fused)
    prepared(x)
    return quantization.convert(prepared)


def test_static_quantisation() -> None:
    """Near the model of numbers; compiled as it is eagerly; only integers are multiplied."""
    net, x = _net(), gf.tensor(_normal(6, 3, 6, 6))
    exact = net(x).detach().numpy()
    model = _converted(net, x)
    found = model(x).numpy()
    assert np.abs(found - exact).max() < 0.03 * np.abs(exact).max()
    program = gf.compile(gf.trace(model, gf.TensorSpec(x.shape)))
    np.testing.assert_allclose(program(x).numpy(), found, atol=1e-5)
    kernels = [step.kernel.name for step in program.schedule.steps]
    assert (
        sum(name.startswith(("mm_dots_i8", "mm_pairs_i8", "mm_quads_i8")) for name in kernels) == 3
    )
    assert not any(name.startswith("mm_f32") for name in kernels)


def test_a_state_goes_from_one_model_to_another() -> None:
    """Weights are saved as bytes, ranges of inputs with them."""
    x = gf.tensor(_normal(6, 3, 6, 6))
    model, other = _converted(_net(), x), _converted(_net(), x * 3)
    state = model.state_dict()
    assert state["fc.weight"].dtype is gf.int8 and state["conv1.scale"].ndim == 0
    other.load_state_dict(state)
    np.testing.assert_array_equal(other(x).numpy(), model(x).numpy())
    del state["fc.scale"]
    with pytest.raises(gf.GraphFlowError, match=r"missing: fc\.scale"):
        other.load_state_dict(state)


def test_ranges_that_were_loaded_hold_in_a_compiled_model() -> None:
    x = gf.tensor(_normal(6, 3, 6, 6))
    model, other = _converted(_net(), x), _converted(_net(), x * 3)
    run = gf.compile(other)
    run(x)
    other.load_state_dict(model.state_dict())
    np.testing.assert_allclose(run(x).numpy(), model(x).numpy(), atol=1e-5)


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_dynamic_recurrent_layers(kind: type[nn.Module]) -> None:
    """Two layers, both directions: near the layer of numbers, compiled and not."""
    gf.manual_seed(SEED)
    layer = kind(12, 16, 2, bidirectional=True)
    x = gf.tensor(_normal(5, 3, 12))
    model = quantization.quantize_dynamic(layer, {kind})
    exact, found = layer(x)[0].detach().numpy(), model(x)[0].numpy()
    assert 0 < np.abs(found - exact).max() < 0.02
    again = gf.compile(model)(x)[0].numpy()
    # A sum that is rounded otherwise may fall on the next integer.
    np.testing.assert_allclose(again, found, atol=4e-3)


def test_dynamic_linear_layers_by_name() -> None:
    gf.manual_seed(SEED)
    net = nn.Sequential(nn.Linear(20, 30), nn.ReLU(), nn.Linear(30, 4))
    model = quantization.quantize_dynamic(net, {"2": quantization.per_channel_dynamic_qconfig})
    assert type(model[0]) is nn.Linear and model[2].weight_scale.shape == (4,)
    for shape in ((20,), (7, 20), (2, 3, 20)):
        x = gf.tensor(_normal(*shape))
        exact = net(x).detach().numpy()
        np.testing.assert_allclose(model(x).detach().numpy(), exact, atol=0.02)


def test_training_with_rounding() -> None:
    """The compiled step learns, and what it learnt is what the converted model does."""
    net = _net().train()
    net.qconfig = quantization.get_default_qat_qconfig("x86")
    model = quantization.prepare_qat(net, inplace=True)
    optimizer = gf.optim.SGD(model.parameters(), lr=0.3)
    x, labels = gf.tensor(_normal(8, 3, 6, 6)), gf.arange(8) % 5

    @gf.compile
    def step() -> gf.Tensor:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), labels)
        loss.backward()
        optimizer.step()
        return loss

    losses = [step().item() for _ in range(30)]
    assert losses[-1] < 0.5 * losses[0]
    model.eval().apply(quantization.disable_observer)
    rounded = model(x).detach().numpy()
    found = quantization.convert(model)(x).numpy()
    np.testing.assert_allclose(found, rounded, atol=0.02 * np.abs(rounded).max())
