"""Attention of several heads and Transformers as modules, against NumPy in double precision."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import graphflow as gf
from graphflow import nn, optim
from graphflow.nn import functional as F
from tests.front import agree, ramp, training_step

Array = np.ndarray[Any, Any]

PRINTED = """TransformerEncoderLayer(
  (self_attn): MultiheadAttention(
    (out_proj): NonDynamicallyQuantizableLinear(in_features=4, out_features=4, bias=True)
  )
  (linear1): Linear(in_features=4, out_features=8, bias=True)
  (dropout): Dropout(p=0.1, inplace=False)
  (linear2): Linear(in_features=8, out_features=4, bias=True)
  (norm1): LayerNorm((4,), eps=1e-05, elementwise_affine=True, bias=True)
  (norm2): LayerNorm((4,), eps=1e-05, elementwise_affine=True, bias=True)
  (dropout1): Dropout(p=0.1, inplace=False)
  (dropout2): Dropout(p=0.1, inplace=False)
)"""  # recorded from PyTorch 2.13


def softmax(scores: Array) -> Array:
    with np.errstate(invalid="ignore"):
        e = np.exp(scores - scores.max(-1, keepdims=True))
        return np.nan_to_num(e / e.sum(-1, keepdims=True))


def weights_of(module: nn.Module) -> dict[str, Array]:
    return {name: p.detach().numpy() for name, p in module.named_parameters()}


class Oracle:
    """The formulas of Vaswani et al. (2017) on arrays [N, positions, E]."""

    def __init__(self, module: nn.Module, heads: int) -> None:
        self.weights, self.heads = weights_of(module), heads

    def linear(self, name: str, x: Array) -> Array:
        return x @ self.weights[f"{name}.weight"].T + self.weights.get(f"{name}.bias", 0.0)

    def norm(self, name: str, x: Array) -> Array:
        centred = x - x.mean(-1, keepdims=True)
        out = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
        return out * self.weights[f"{name}.weight"] + self.weights.get(f"{name}.bias", 0.0)

    def attention(self, name: str, q: Array, k: Array, v: Array, bias: Any) -> tuple[Array, Array]:
        dot = f"{name}." if name else ""
        packed = self.weights.get(f"{dot}in_proj_weight")
        parts = (
            np.split(packed, 3)
            if packed is not None
            else [self.weights[f"{dot}{x}_proj_weight"] for x in "qkv"]
        )
        shifts = np.split(self.weights.get(f"{dot}in_proj_bias", np.zeros(3 * len(parts[0]))), 3)
        q, k, v = (x @ w.T + b for x, w, b in zip((q, k, v), parts, shifts, strict=True))
        q, k, v = (x.reshape(*x.shape[:2], self.heads, -1).transpose(0, 2, 1, 3) for x in (q, k, v))
        weights = softmax(q @ k.swapaxes(-1, -2) / math.sqrt(q.shape[-1]) + bias)
        mixed = (weights @ v).transpose(0, 2, 1, 3)
        return self.linear(f"{dot}out_proj", mixed.reshape(*mixed.shape[:2], -1)), weights

    def feed_forward(self, name: str, x: Array) -> Array:
        return self.linear(f"{name}.linear2", np.maximum(self.linear(f"{name}.linear1", x), 0))

    def encoder_layer(self, name: str, x: Array, bias: Any, first: bool) -> Array:
        def look(y: Array) -> Array:
            return self.attention(f"{name}.self_attn", y, y, y, bias)[0]

        x = self.residual(f"{name}.norm1", x, look, first)
        return self.residual(f"{name}.norm2", x, lambda y: self.feed_forward(name, y), first)

    def decoder_layer(self, name: str, x: Array, memory: Array, bias: Any, first: bool) -> Array:
        def look(y: Array) -> Array:
            return self.attention(f"{name}.self_attn", y, y, y, bias)[0]

        def across(y: Array) -> Array:
            return self.attention(f"{name}.multihead_attn", y, memory, memory, 0.0)[0]

        x = self.residual(f"{name}.norm1", x, look, first)
        x = self.residual(f"{name}.norm2", x, across, first)
        return self.residual(f"{name}.norm3", x, lambda y: self.feed_forward(name, y), first)

    def residual(self, norm: str, x: Array, block: Any, first: bool) -> Array:
        return x + block(self.norm(norm, x)) if first else self.norm(norm, x + block(x))


def uneven(module: nn.Module, seed: int) -> nn.Module:
    """``module`` with every parameter drawn: biases and norms, too."""
    print("seed", seed)
    rng = np.random.default_rng(seed)
    with gf.no_grad():
        for p in module.parameters():
            p.copy_(gf.tensor(rng.standard_normal(tuple(p.shape)) * 0.4, dtype=p.dtype))
    return module


def drawn(seed: int, *shapes: tuple[int, ...]) -> list[Array]:
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape) for shape in shapes]


@pytest.mark.parametrize("wrap", [lambda f: f, gf.compile], ids=["eager", "compiled"])
@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("kind", ["same", "memory", "other widths"])
def test_heads_with_their_projections(kind: str, batch_first: bool, wrap: Any) -> None:
    kdim, vdim = (5, 7) if kind == "other widths" else (None, None)
    made = nn.MultiheadAttention(
        12, 3, kdim=kdim, vdim=vdim, batch_first=batch_first, dtype=gf.float64
    )
    module = uneven(made, 1)
    q, k, v = drawn(2, (2, 4, 12), (2, 6, kdim or 12), (2, 6, vdim or 12))
    if kind != "other widths":
        k = v = q if kind == "same" else k
    closed = np.random.default_rng(3).random((2, k.shape[1])) < 0.4
    closed[:, 0] = False
    added = np.random.default_rng(4).standard_normal((4, k.shape[1]))

    order = (0, 1, 2) if batch_first else (1, 0, 2)
    given: dict[int, gf.Tensor] = {}
    tensors = [given.setdefault(id(x), gf.tensor(x.transpose(order).copy())) for x in (q, k, v)]
    call = wrap(
        lambda *x: module(
            *x,
            key_padding_mask=gf.tensor(closed),
            attn_mask=gf.tensor(added),
            average_attn_weights=False,
        )
    )
    found, weights = call(*tensors)
    bias = np.where(closed, -np.inf, 0.0)[:, None, None] + added
    expected, expected_weights = Oracle(module, 3).attention("", q, k, v, bias)
    np.testing.assert_allclose(found.detach().numpy().transpose(order), expected, rtol=1e-9)
    np.testing.assert_allclose(weights.detach().numpy(), expected_weights, rtol=1e-9, atol=1e-12)
    without, none = module(
        *tensors, key_padding_mask=gf.tensor(closed), attn_mask=gf.tensor(added), need_weights=False
    )
    assert none is None
    np.testing.assert_allclose(without.detach().numpy(), found.detach().numpy(), rtol=1e-12)


@pytest.mark.parametrize("wrap", [lambda f: f, gf.compile], ids=["eager", "compiled"])
@pytest.mark.parametrize("first", [True, False], ids=["norm first", "norm last"])
def test_the_whole_transformer(first: bool, wrap: Any) -> None:
    made = nn.Transformer(
        8, 2, 2, 1, 16, 0.0, batch_first=True, norm_first=first, bias=not first, dtype=gf.float64
    )
    module = uneven(made, 5)
    source, target = drawn(6, (2, 5, 8), (2, 4, 8))
    causal = nn.Transformer.generate_square_subsequent_mask(4, dtype=gf.float64)
    closed = np.zeros((2, 5), bool)
    closed[1, 3:] = True
    for hint in (None, True):
        call = wrap(
            lambda s, t, hint=hint: module(
                s, t, tgt_mask=causal, src_key_padding_mask=gf.tensor(closed), tgt_is_causal=hint
            )
        )
        found = call(gf.tensor(source), gf.tensor(target))
        oracle = Oracle(module, 2)
        memory = source
        for i in range(2):
            bias = np.where(closed, -np.inf, 0.0)[:, None, None]
            memory = oracle.encoder_layer(f"encoder.layers.{i}", memory, bias, first)
        memory = oracle.norm("encoder.norm", memory)
        bias = np.where(np.tri(4, dtype=bool), 0.0, -np.inf)
        out = oracle.decoder_layer("decoder.layers.0", target, memory, bias, first)
        out = oracle.norm("decoder.norm", out)
        np.testing.assert_allclose(found.detach().numpy(), out, rtol=1e-8, atol=1e-10)


def test_positions_added_to_keys_and_values() -> None:
    module = uneven(
        nn.MultiheadAttention(6, 2, add_bias_kv=True, add_zero_attn=True, dtype=gf.float64), 7
    )
    x = gf.tensor(drawn(8, (3, 2, 6))[0])
    out, weights = module(x, x, x, attn_mask=gf.ones(3, 3, dtype=gf.bool), need_weights=True)
    assert weights.shape == (2, 3, 5)
    np.testing.assert_allclose(weights[..., :3].detach().numpy(), 0.0)
    np.testing.assert_allclose(weights.sum(-1).detach().numpy(), 1.0, rtol=1e-12)
    same, _ = module(x, x, x, attn_mask=gf.ones(3, 3, dtype=gf.bool), need_weights=False)
    np.testing.assert_allclose(same.detach().numpy(), out.detach().numpy(), rtol=1e-12)


def test_masks_that_leave_nothing_give_no_nan() -> None:
    module = uneven(nn.TransformerEncoderLayer(4, 2, 8, 0.0, batch_first=True), 9)
    x = gf.tensor(drawn(10, (2, 3, 4))[0], dtype=gf.float32, requires_grad=True)
    padding = gf.tensor([[True, True, True], [False, True, False]])
    out = module(x, src_key_padding_mask=padding)
    out.sum().backward()
    assert bool(out.isfinite().all()) and bool(x.grad.isfinite().all())
    assert all(bool(p.grad.isfinite().all()) for p in module.parameters())


def test_training_with_dropout_and_padded_labels_is_the_same_compiled() -> None:
    labels = gf.tensor([[1, 2, -100], [0, -100, -100]])
    closed = labels == -100

    def program(jit: Any) -> Any:
        model = uneven(nn.TransformerEncoderLayer(6, 2, 8, 0.2, "gelu", batch_first=True), 11)
        opt = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

        def loss(out: gf.Tensor) -> gf.Tensor:
            return F.cross_entropy(out.flatten(0, 1), labels.flatten())

        class Masked(nn.Module):
            def forward(self, x: gf.Tensor) -> gf.Tensor:
                return model(x, src_key_padding_mask=closed)

        step = training_step(Masked(), opt, jit, loss)
        losses = [step(ramp(2, 3, 6)) for _ in range(3)]
        return [*losses, list(model.parameters())]

    results = agree(program, rtol=1e-4, atol=1e-6)
    assert all(np.isfinite(r).all() for r in results)
    assert results[0] != results[1]  # other draws, other weights


def test_dropout_of_the_weights_is_the_seeds() -> None:
    module = nn.MultiheadAttention(4, 2, dropout=0.5)
    x = ramp(3, 2, 4)
    runs = []
    for seed in (1, 1, 2):
        gf.manual_seed(seed)
        runs.append(module(x, x, x)[0].detach().numpy())
    np.testing.assert_array_equal(runs[0], runs[1])
    assert (runs[0] != runs[2]).any()
    module.eval()
    np.testing.assert_array_equal(*(module(x, x, x)[0].detach().numpy() for _ in range(2)))


def test_names_and_printing_are_pytorchs() -> None:
    layer = nn.TransformerEncoderLayer(4, 2, 8)
    assert repr(layer) == PRINTED
    assert list(layer.state_dict())[:5] == [
        "self_attn.in_proj_weight", "self_attn.in_proj_bias", "self_attn.out_proj.weight",
        "self_attn.out_proj.bias", "linear1.weight",
    ]  # fmt: skip
    separate = nn.MultiheadAttention(4, 2, kdim=3, add_bias_kv=True)
    assert list(separate.state_dict()) == [
        "q_proj_weight", "k_proj_weight", "v_proj_weight", "in_proj_bias", "bias_k", "bias_v",
        "out_proj.weight", "out_proj.bias",
    ]  # fmt: skip
    stack = nn.TransformerEncoder(layer, 2)
    first, second = stack.layers
    assert first is not layer and bool((first.linear1.weight == second.linear1.weight).all())
    assert first.linear1.weight is not second.linear1.weight


def test_first_values() -> None:
    gf.manual_seed(0)
    module = nn.MultiheadAttention(64, 4, add_bias_kv=True)
    bound = math.sqrt(6 / (64 + 3 * 64))  # Glorot and Bengio (2010) of the packed matrix
    largest = module.in_proj_weight.abs().max().item()
    assert 0.98 * bound < largest <= bound
    assert not module.in_proj_bias.any() and not module.out_proj.bias.any()
    assert module.bias_k.any()
    whole = nn.Transformer(16, 2, 1, 1, 16)
    assert whole.encoder.layers[0].linear1.weight.abs().max().item() <= math.sqrt(6 / 32)


def test_mistakes() -> None:
    with pytest.raises(ValueError, match="not divisible"):
        nn.MultiheadAttention(5, 2)
    with pytest.raises(ValueError, match="greater than 0"):
        nn.MultiheadAttention(0, 1)
    with pytest.raises(RuntimeError, match="relu or gelu"):
        nn.TransformerEncoderLayer(4, 2, activation="tanh")
    x, module = gf.zeros(3, 2, 4), nn.MultiheadAttention(4, 2)
    cases = {
        "attn_mask has shape": {"attn_mask": gf.zeros(3, 4)},
        "key_padding_mask has shape": {"key_padding_mask": gf.zeros(3, 2)},
        "key_padding_mask needs 2 dimensions": {"key_padding_mask": gf.zeros(3)},
        "bool or floating": {"attn_mask": gf.zeros(3, 3, dtype=gf.int64)},
        "attn_mask, which is missing": {"is_causal": True},
    }
    for message, options in cases.items():
        with pytest.raises(gf.GraphFlowError, match=message):
            module(x, x, x, **options)
    with pytest.raises(gf.ShapeError, match="do not belong together"):
        module(x, x, gf.zeros(4, 2, 4))
    with pytest.raises(gf.ShapeError, match="3 dimensions, or 2"):
        module(gf.zeros(4), gf.zeros(4), gf.zeros(4))
    whole = nn.Transformer(4, 2, 1, 1, 8)
    with pytest.raises(gf.ShapeError, match="samples"):
        whole(x, gf.zeros(3, 1, 4))
    with pytest.raises(gf.ShapeError, match="d_model"):
        whole(x, gf.zeros(3, 2, 5))
