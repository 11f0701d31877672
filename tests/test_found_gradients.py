"""Compiled functions that read ``.grad`` of parameters work on what lies there when called."""

from functools import partial
from typing import Any

import numpy as np
import pytest

import graphflow as gf
import graphflow.nn.functional as F
from graphflow import nn


def model_and_data(seed: int) -> tuple[nn.Module, Any, Any]:
    gf.manual_seed(seed)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((20, 6)).astype(np.float32)
    return model, gf.tensor(x), gf.tensor(rng.integers(0, 3, 20))


def parts(compiled: bool, make: Any) -> tuple[Any, Any, Any, Any, Any]:
    model, x, y = model_and_data(3)
    optimizer = make(model.parameters())
    forward = gf.compile(model) if compiled else model
    step = gf.compile(optimizer.step) if compiled else optimizer.step
    return model, optimizer, forward, step, (x, y)


OPTIMIZERS = {
    "sgd": lambda p: gf.optim.SGD(p, lr=0.1, momentum=0.9),
    "adam": lambda p: gf.optim.Adam(p, lr=0.01),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_model_and_optimizer_compiled_apart_train_as_eager(name: str) -> None:
    losses = []
    for compiled in (False, True):
        model, optimizer, forward, step, (x, y) = parts(compiled, OPTIMIZERS[name])
        losses.append([])
        for _ in range(8):
            optimizer.zero_grad()
            loss = F.cross_entropy(forward(x), y)
            loss.backward()
            step()
            losses[-1].append(loss.item())
        if compiled:
            assert len(step.programs) <= 2, [str(r) for r in step.recompiles]
        del model
    np.testing.assert_allclose(losses[0], losses[1], rtol=2e-5)
    assert losses[0][-1] < losses[0][0]


def test_a_gradient_changed_in_place_is_the_callers() -> None:
    p = nn.Parameter(gf.ones(4))

    @gf.compile
    def clip() -> None:
        with gf.no_grad():
            p.grad.mul_(0.5)

    for value in (2.0, 4.0, 6.0):
        p.grad = gf.full((4,), value)
        held = p.grad
        clip()
        assert p.grad is held
        np.testing.assert_array_equal(held.numpy(), np.full(4, value / 2, np.float32))
    assert len(clip.programs) == 1


def test_another_type_or_none_is_another_program() -> None:
    p = nn.Parameter(gf.ones(3))

    @gf.compile
    def norm() -> Any:
        return p.grad.sum() if p.grad is not None else gf.zeros(())

    assert norm().item() == 0
    p.grad = gf.tensor([1.0, 2.0, 3.0])
    assert norm().item() == 6
    p.grad = gf.tensor([1.0, 2.0, 5.0])
    assert norm().item() == 8
    assert len(norm.programs) == 2
    p.grad = None
    assert norm().item() == 0
    assert len(norm.programs) == 2


def test_strided_gradients_are_read_right() -> None:
    p = nn.Parameter(gf.ones(2, 3))

    @gf.compile
    def double() -> Any:
        return p.grad * 2

    p.grad = gf.ones(2, 3)
    double()
    p.grad = gf.arange(6, dtype=gf.float32).reshape(3, 2).t()
    np.testing.assert_array_equal(double().numpy(), np.arange(6).reshape(3, 2).T * 2)


def test_a_returned_gradient_is_the_current_one() -> None:
    p = nn.Parameter(gf.ones(2))

    @gf.compile
    def give() -> Any:
        return p.grad

    for _ in range(3):
        p.grad = gf.rand(2)
        assert give() is p.grad


def test_a_gradient_that_is_an_argument_too() -> None:
    p = nn.Parameter(gf.ones(2))

    @gf.compile
    def scale(x: Any) -> Any:
        with gf.no_grad():
            p.grad.mul_(2)
        return x + 1

    for value in (1.0, 3.0):
        p.grad = gf.full((2,), value)
        np.testing.assert_array_equal(scale(p.grad).numpy(), np.full(2, 2 * value + 1, np.float32))
        other = gf.full((2,), 5.0)
        np.testing.assert_array_equal(scale(other).numpy(), np.full(2, 6.0, np.float32))


def test_leaves_that_share_a_gradient() -> None:
    a, b = nn.Parameter(gf.ones(2)), nn.Parameter(gf.ones(2))

    @gf.compile
    def total() -> Any:
        return a.grad + 10 * b.grad

    a.grad = b.grad = gf.ones(2)
    np.testing.assert_array_equal(total().numpy(), [11, 11])
    a.grad, b.grad = gf.full((2,), 2.0), gf.full((2,), 3.0)
    np.testing.assert_array_equal(total().numpy(), [32, 32])


def test_gradients_of_a_functions_own_leaves_are_not_kept():
    """A detached argument is another tensor; nobody sees its gradient after the call."""
    x = gf.tensor([1.0, 2.0, 3.0], requires_grad=True)

    def penalty(x):
        own = x.detach().requires_grad_()
        (own**3).sum().backward()
        return own.grad * 2.0

    compiled = gf.compile(penalty)
    np.testing.assert_array_equal(compiled(x).numpy(), [6.0, 24.0, 54.0])
    assert x.grad is None and not compiled.programs[0].graph.state


def _exchanged(p: Any, q: Any) -> None:
    p.grad.mul_(2)
    p.grad, q.grad = q.grad, p.grad


def _scaled_by_name(p: Any, q: Any) -> None:
    p.grad *= 0.5
    q.grad = q.grad + 1


def _given_to_another(p: Any, q: Any) -> None:
    q.grad = p.grad
    q.grad.mul_(3)


def _turned(p: Any, q: Any) -> None:
    p.grad = p.grad @ q.detach() + p.grad.t()


def _kept_and_handed_on(p: Any, q: Any) -> None:
    q.grad, p.grad = p.grad, p.grad.t() * 2


def _shown_by_another(p: Any, q: Any) -> None:
    q.grad = p.grad.t()
    p.grad.add_(1)


@pytest.mark.parametrize(
    "change",
    [
        _exchanged,
        _scaled_by_name,
        _given_to_another,
        _turned,
        _kept_and_handed_on,
        _shown_by_another,
    ],
    ids=lambda f: f.__name__.strip("_"),
)
@pytest.mark.parametrize("fresh", [False, True])
def test_what_a_function_does_with_the_gradients_that_it_finds(change: Any, fresh: bool) -> None:
    """Whether it finds others at each call or what it has left there itself."""
    rng = np.random.default_rng(4)
    values, first, second = rng.normal(size=(3, 40, 40))
    seen = []
    for compiled in (False, True):
        p, q = nn.Parameter(gf.tensor(values)), nn.Parameter(gf.tensor(values + 1))
        step = partial(change, p, q)
        step = gf.compile(step, keep_grads=True) if compiled else step
        seen.append([])
        for call in range(5):
            if fresh or call == 0:
                p.grad, q.grad = gf.tensor(first + call), gf.tensor(second * (call + 1))
                found = p.grad, q.grad
            step()
            seen[-1] += [t.numpy().copy() for t in (p.grad, q.grad, *found)]
            p.grad.mul_(0.25)
            q.grad.add_(0.5)
            seen[-1] += [t.numpy().copy() for t in (p.grad, q.grad)]
    for eager, traced in zip(*seen, strict=True):
        np.testing.assert_allclose(traced, eager, rtol=1e-9, atol=1e-9)


def test_gradients_that_become_one_or_a_buffer() -> None:
    a, b, held = nn.Parameter(gf.ones(2)), nn.Parameter(gf.ones(2)), gf.zeros(2)

    @gf.compile
    def change() -> Any:
        a.grad.mul_(2)
        b.grad.add_(1)
        return a.grad + 10 * held

    a.grad, b.grad = gf.full((2,), 2.0), gf.full((2,), 3.0)
    np.testing.assert_array_equal(change().numpy(), [4, 4])
    a.grad = b.grad = gf.ones(2)
    np.testing.assert_array_equal(change().numpy(), [3, 3])
    a.grad, b.grad = gf.ones(2), held
    np.testing.assert_array_equal(change().numpy(), [12, 12])
    np.testing.assert_array_equal(held.numpy(), [1, 1])


@pytest.mark.parametrize("compiled", [False, True])
def test_gradients_are_set_to_zero_where_they_lie(compiled: bool) -> None:
    """Parts of one piece of memory, as all gradients of a model may be, stay such."""
    layer = nn.Linear(2, 1)
    optimizer = gf.optim.SGD(layer.parameters(), lr=0.5)
    for zero in (layer.zero_grad, optimizer.zero_grad):
        whole = gf.full((3,), 7.0)
        layer.weight.grad, layer.bias.grad = whole[:2].view(1, 2), whole[2:]

        def step(x: Any, zero: Any = zero) -> None:
            zero(set_to_none=False)
            layer(x).sum().backward()

        step = gf.compile(step, keep_grads=True) if compiled else step
        for row in ([1.0, 2.0], [3.0, 4.0]):
            step(gf.tensor([row]))
            np.testing.assert_array_equal(whole.numpy(), [*row, 1])


@pytest.mark.parametrize("compiled", [False, True])
def test_a_leaf_that_wants_no_gradient_any_more_gets_none(compiled: bool) -> None:
    layer = nn.Linear(2, 2)

    def step(x: Any) -> None:
        loss = layer(x).square().sum()
        layer.weight.requires_grad_(False)
        loss.backward()

    (gf.compile(step, keep_grads=True) if compiled else step)(gf.ones(1, 2))
    assert layer.weight.grad is None and layer.bias.grad is not None


@pytest.mark.parametrize("compiled", [False, True])
def test_gradients_with_a_history_have_memory_of_their_own(compiled: bool) -> None:
    a, b = nn.Parameter(gf.ones(2)), nn.Parameter(gf.ones(2))

    def step(x: Any) -> None:
        (a + b).sum().backward(create_graph=True)
        (a * x).sum().backward()
        a.grad.detach().mul_(3)

    (gf.compile(step, keep_grads=True) if compiled else step)(gf.tensor([2.0, 5.0]))
    np.testing.assert_array_equal(a.grad.detach().numpy(), [9, 18])
    np.testing.assert_array_equal(b.grad.detach().numpy(), [1, 1])


def test_requires_grad_is_switched_at_every_call() -> None:
    p, q = nn.Parameter(gf.ones(2)), nn.Parameter(gf.full((2,), 3.0))

    @gf.compile(keep_grads=True)
    def step(x: Any) -> None:
        (p * q * x).sum().backward()
        q.requires_grad_(not q.requires_grad)

    for call in range(1, 6):
        step(gf.ones(2))
        assert q.requires_grad is (call % 2 == 0)
        np.testing.assert_array_equal(p.grad.numpy(), np.full(2, 3 * call))
        np.testing.assert_array_equal(q.grad.numpy(), np.full(2, (call + 1) // 2))
    with pytest.raises(gf.errors.GraphFlowError):
        gf.compile(lambda x: q.requires_grad_(True).sum() @ x)(gf.ones(2))
    assert q.requires_grad is False


def test_what_is_switched_off_and_on_again_takes_one_program() -> None:
    """The other half of an adversarial pair, as scripts do it."""
    seen = []
    for compiled in (False, True):
        gf.manual_seed(2)
        judge, maker = nn.Linear(3, 1), nn.Linear(3, 3)
        rate = gf.optim.SGD([*judge.parameters()], lr=0.1), gf.optim.SGD(maker.parameters(), lr=0.1)
        step = partial(_adversarial, judge, maker, *rate)
        step = gf.compile(step) if compiled else step
        for _ in range(4):
            step(gf.ones(2, 3))
        seen.append([p.detach().numpy() for p in (*judge.parameters(), *maker.parameters())])
        assert all(p.requires_grad for p in judge.parameters())
        assert not compiled or len(step.programs) == 1
    for eager, traced in zip(*seen, strict=True):
        np.testing.assert_allclose(traced, eager, rtol=1e-5)


def _adversarial(judge: Any, maker: Any, judges: Any, makers: Any, x: Any) -> None:
    judge.requires_grad_(False)
    makers.zero_grad()
    judge(maker(x)).sum().backward()
    makers.step()
    judge.requires_grad_(True)
    judges.zero_grad()
    judge(maker(x).detach()).square().sum().backward()
    judges.step()


def test_what_a_function_detaches_and_wants_a_gradient_of_is_its_own() -> None:
    @gf.compile
    def run(x: Any) -> Any:
        y = x.detach().requires_grad_()
        return gf.autograd.grad((y**3).sum(), y)[0]

    for scale in (1.0, 2.0, 3.0):
        found = run(gf.full((2,), scale))
        np.testing.assert_allclose(found.numpy(), np.full(2, 3 * scale**2))
    assert len(run.programs) == 1 and not run.recompiles


@pytest.mark.parametrize("place", ["first", "before backward"])
def test_gradients_set_to_zero_that_no_step_keeps_need_one_program(place: str) -> None:
    layer = nn.Linear(3, 2)
    optimizer = gf.optim.SGD(layer.parameters(), lr=0.1)

    @gf.compile
    def step(x: Any) -> Any:
        if place == "first":
            optimizer.zero_grad(set_to_none=False)
        loss = layer(x).sum()
        if place != "first":
            optimizer.zero_grad(set_to_none=False)
        loss.backward()
        optimizer.step()
        return loss

    before = layer.weight.detach().numpy().copy()
    for _ in range(5):
        step(gf.ones(4, 3))
    np.testing.assert_allclose(layer.weight.detach().numpy(), before - 5 * 0.1 * 4, rtol=1e-5)
    assert len(step.programs) == 2  # without a gradient at first, with one that was not kept
    assert [str(r).partition(" (")[0] for r in step.recompiles] == [
        "the gradient of 'layer.weight': None → <StaleGradient>"
    ]
