"""Functions that eager code runs as a whole: the same results, gradients and errors."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import graphflow as gf
import graphflow.nn.functional as F
from graphflow import eager_functions, flags, nn
from graphflow.autograd.compiled import CompiledNode
from graphflow.autograd.several import OutputNode
from graphflow.backends import cpu
from graphflow.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

RNG = np.random.default_rng(20261130)
ROWS = RNG.standard_normal((7, 3, 5))


@pytest.fixture(autouse=True)
def at_once() -> Iterator[None]:
    """Functions are compiled at their first call."""
    cpu.eager_kernels = True
    gf.use_deterministic_algorithms(True)
    yield
    gf.use_deterministic_algorithms(False)
    cpu.eager_kernels = False


def compiled(out: gf.Tensor) -> bool:
    """Whether a compiled function is in the history of ``out``."""
    pending, seen = [out.grad_fn], set[Any]()
    while pending:
        node = pending.pop()
        if node in seen:
            continue
        seen.add(node)
        if isinstance(node, OutputNode) and isinstance(node.call, CompiledNode):
            return True
        edges = [] if node is None else [edge for edge in node.edges if edge is not None]
        pending += [edge.node for edge in edges if edge.node is not None]
    return False


def model(kind: Any, **options: Any) -> nn.Module:
    gf.manual_seed(3)
    made: nn.Module = kind(5, 4, dtype=gf.float64, **options)
    return made


def trained(made: nn.Module, second: bool) -> list[np.ndarray[Any, Any]]:
    """Output, gradients of input and parameters, and of the square of the input's gradient."""
    x = gf.from_numpy(ROWS.copy()).requires_grad_()
    out: gf.Tensor = made(x)[0]
    assert compiled(out) == cpu.eager_kernels
    loss = (out * out).sum()
    found = [out.detach().numpy()]
    if second:
        slope: Any = gf.autograd.grad(loss, x, create_graph=True)[0]
        loss = loss + (slope * slope).sum()
    for parameter in made.parameters():
        parameter.grad = None
    loss.backward()
    grads = [x.grad, *(parameter.grad for parameter in made.parameters())]
    return found + [g.numpy().copy() for g in grads if g is not None]


@pytest.mark.parametrize("second", [False, True], ids=["first", "second derivatives"])
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (nn.LSTM, {"num_layers": 2}),
        (nn.GRU, {"bidirectional": True}),
        (nn.RNN, {"bias": False}),
        (nn.LSTM, {"proj_size": 2}),
    ],
    ids=["lstm", "gru", "rnn", "projected"],
)
def test_recurrent_layers(kind: Any, options: dict[str, Any], second: bool) -> None:
    """Results and gradients are those of the single operations."""
    as_one = trained(model(kind, **options), second)
    cpu.eager_kernels = False
    one_by_one = trained(model(kind, **options), second)
    assert len(as_one) == len(one_by_one)
    for found, want in zip(as_one, one_by_one, strict=True):
        np.testing.assert_allclose(found, want, rtol=1e-9, atol=1e-12)


def test_packed_sequences() -> None:
    """Sequences of different lengths, packed."""
    lengths = gf.tensor([7, 4, 2])

    def padded() -> np.ndarray[Any, Any]:
        packed = pack_padded_sequence(gf.from_numpy(ROWS), lengths)
        out, _ = pad_packed_sequence(model(nn.LSTM)(packed)[0])
        return out.detach().numpy()

    as_one = padded()
    cpu.eager_kernels = False
    np.testing.assert_allclose(as_one, padded(), rtol=1e-10, atol=1e-12)


def test_without_gradients() -> None:
    """No history where none is wanted."""
    with gf.no_grad():
        assert model(nn.LSTM)(gf.from_numpy(ROWS))[0].grad_fn is None


def test_a_weight_changed_before_backward() -> None:
    """Backward refuses values that are not there any more."""
    made = model(nn.LSTM)
    loss = made(gf.from_numpy(ROWS))[0].sum()
    with gf.no_grad():
        list(made.parameters())[1].add_(1.0)  # the recurrent product's
    with pytest.raises(gf.GraphFlowError, match="modified by an in-place operation"):
        loss.backward()


def test_twice_backward() -> None:
    """A second backward pass needs retain_graph."""
    loss = model(nn.LSTM)(gf.from_numpy(ROWS))[0].sum()
    loss.backward(retain_graph=True)
    loss.backward()
    with pytest.raises(gf.GraphFlowError, match="retain_graph"):
        loss.backward()


def test_compiled_beside(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    """Until a thread has compiled a function its operations run one by one."""
    gf.use_deterministic_algorithms(False)
    made, x = model(nn.GRU), gf.from_numpy(RNG.standard_normal((9, 2, 5)))
    with flags.override(cache_dir=str(tmp_path)):
        outs = [made(x)[0] for _ in range(eager_functions.OFTEN)]
        assert not any(map(compiled, outs)), "a call must not wait for a compiler"
        deadline = time.monotonic() + 200
        while not compiled(out := made(x)[0]) and time.monotonic() < deadline:
            np.testing.assert_allclose(out.detach(), outs[0].detach(), rtol=1e-10, atol=1e-12)
            time.sleep(0.002)
        assert compiled(out)
        np.testing.assert_allclose(out.detach(), outs[0].detach(), rtol=1e-10, atol=1e-12)


def test_many_kinds_of_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seldom kinds are forgotten, those that are compiled are not, and all give results."""
    monkeypatch.setattr(eager_functions, "MOST", 3)
    monkeypatch.setattr(eager_functions, "COUNTED", 5)
    prepared: list[Any] = []
    monkeypatch.setattr("graphflow.eager_kernels.compile_beside", prepared.append)
    gf.use_deterministic_algorithms(False)
    doubled = eager_functions.as_a_whole()(lambda x: x * 2.0)

    def call(length: int) -> None:
        x = RNG.standard_normal(length)
        np.testing.assert_allclose(doubled(gf.from_numpy(x)).numpy(), x * 2.0)

    for length in (*range(1, 40), *[50] * eager_functions.OFTEN, *range(1, 40)):
        call(length)
    assert len(prepared) == 1
    prepared.pop()()
    for length in (51, 52, 53, 54):
        for _ in range(eager_functions.OFTEN):
            call(length)
    assert len(prepared) == 2, "three kinds are compiled, with the first"
    call(50)


LOGITS, CHANCES = RNG.standard_normal((70, 60)), RNG.random((70, 60))
CLASSES = RNG.integers(0, 60, 70)
CLASSES[3] = -100

LOSSES: dict[str, tuple[Any, ...]] = {
    "classes": (F.cross_entropy, CLASSES, {"label_smoothing": 0.1}),
    "weighted": (F.cross_entropy, CLASSES, {"weight": CHANCES[0], "reduction": "sum"}),
    "probabilities": (F.cross_entropy, CHANCES, {}),
    "two logits": (F.binary_cross_entropy_with_logits, CHANCES, {"pos_weight": CHANCES[0]}),
    "two": (lambda x, y: F.binary_cross_entropy(x.sigmoid(), y), CHANCES, {}),
    "squares": (F.mse_loss, CHANCES, {"reduction": "none"}),
    "distances": (F.l1_loss, CHANCES, {}),
    "smooth": (F.smooth_l1_loss, CHANCES, {"beta": 0.3}),
    "huber": (F.huber_loss, CHANCES, {"delta": 0.7}),
    "divergence": (F.kl_div, CHANCES, {"reduction": "batchmean"}),
}


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("second", [False, True], ids=["first", "second derivatives"])
def test_losses(name: str, second: bool) -> None:
    """Results and gradients are those of the single operations."""
    function, target, options = LOSSES[name]
    target = gf.tensor(target)
    options = {k: gf.tensor(v) if isinstance(v, np.ndarray) else v for k, v in options.items()}

    def found() -> list[np.ndarray[Any, Any]]:
        x = gf.tensor(LOGITS).requires_grad_()
        loss = function(x, target, **options)
        assert compiled(loss) == cpu.eager_kernels
        (slope,) = gf.autograd.grad((loss * loss).sum(), x, create_graph=second)
        if second:
            (curve,) = gf.autograd.grad((slope * slope).sum(), x)
            return [loss.detach().numpy(), slope.detach().numpy(), curve.numpy()]
        return [loss.detach().numpy(), slope.numpy()]

    as_one = found()
    cpu.eager_kernels = False
    for ours, want in zip(as_one, found(), strict=True):
        np.testing.assert_allclose(ours, want, rtol=1e-8, atol=1e-10)


def test_a_small_loss_is_a_program_when_it_has_come_very_often(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Little is saved in each call, so compiling must be worth it."""
    prepared: list[Any] = []
    monkeypatch.setattr("graphflow.eager_kernels.compile_beside", prepared.append)
    gf.use_deterministic_algorithms(False)
    small, large = gf.randn(8, 10), gf.randn(70, 60)
    for x, often in ((small, eager_functions.SMALL_OFTEN), (large, eager_functions.OFTEN)):
        for _ in range(often - 1):
            F.mse_loss(x, target=x * 2.0, reduction="sum")
        assert not prepared
        F.mse_loss(x, target=x * 2.0, reduction="sum")
        prepared.pop()()
        found = F.mse_loss(x, target=x * 2.0, reduction="sum")
        np.testing.assert_allclose(found.numpy(), (x * x).sum().numpy(), 1e-5)


def test_settings_tell_programs_apart() -> None:
    x, y = gf.tensor(LOGITS).requires_grad_(), gf.tensor(CLASSES.clip(0))
    for options in ({"reduction": "sum"}, {"label_smoothing": 0.1}, {}, {"ignore_index": 3}):
        found, again = F.cross_entropy(x, y, **options), F.cross_entropy(x, target=y, **options)
        cpu.eager_kernels = False
        expected = F.cross_entropy(x, y, **options)
        cpu.eager_kernels = True
        assert compiled(found) and compiled(again) and not compiled(expected)
        for one in (found, again):
            np.testing.assert_allclose(one.detach().numpy(), expected.detach().numpy(), 1e-12)


def test_wrong_targets() -> None:
    """Errors are the same."""
    x, y = gf.randn(70, 60, requires_grad=True), gf.full((70,), 60)
    for _ in range(2):
        with pytest.raises(IndexError):
            F.cross_entropy(x, y)
    with pytest.raises(ValueError, match=r"must be in \[0, 1\]"):
        F.binary_cross_entropy(gf.full((70, 60), 1.5), gf.zeros(70, 60))


def test_clipping_writes_to_the_gradients_of_every_step() -> None:
    """Other tensors each time, one program."""
    from graphflow.nn.utils import clip_grad_norm_, clip_grad_value_

    parameters = [gf.zeros(s, dtype=gf.float64).requires_grad_() for s in ((3, 4), (5,), ())]
    for seed in range(4):
        rng = np.random.default_rng(seed)
        values = [rng.standard_normal(tuple(p.shape)) for p in parameters]
        for p, value in zip(parameters, values, strict=True):
            p.grad = gf.tensor(value)
        before = [gf.tensor(value) for value in values]
        size = np.sqrt(sum((value**2).sum() for value in values))
        assert clip_grad_norm_(parameters, 0.5).item() == pytest.approx(size)
        for p, value in zip(parameters, before, strict=True):
            assert p.grad is not None
            np.testing.assert_allclose(p.grad.numpy(), value.numpy() * 0.5 / size, rtol=1e-5)
        clip_grad_value_(parameters, 0.01 * (seed + 1))
        assert max(p.grad.abs().max().item() for p in parameters if p.grad is not None) <= 0.05
