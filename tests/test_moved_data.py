"""``x.data = y`` in compiled functions, and gradients that a function leaves at zero."""

import numpy as np
import pytest

import graphflow as gf
from graphflow import nn, optim
from tests.front import agree, linear, ramp


def test_moving_means_of_weights_by_assigned_data():
    def program(jit):
        model, mean = linear(), linear().requires_grad_(False)
        opt = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        memory = [p.data_ptr() for p in mean.parameters()]

        def step(x):
            opt.zero_grad()
            loss = (model(x) - mean(x).detach()).square().mean()
            loss.backward()
            opt.step()
            for new, kept in zip(model.parameters(), mean.parameters(), strict=True):
                kept.data = kept.data * 0.9 + new.data * 0.1
            return loss, mean(x).detach()

        step = jit(step)
        found = [step(ramp(5, 4, offset=0.1 * i)) for i in range(3)]
        if jit is gf.compile:
            assert len(step.programs) == 1
            assert memory == [p.data_ptr() for p in mean.parameters()]
        return [*(t for pair in found for t in pair), *mean.parameters()]

    agree(program, rtol=1e-5)


def test_within_the_function_the_old_memory_keeps_its_values():
    a, b = nn.Parameter(gf.tensor([1.0, 2.0])), nn.Parameter(gf.tensor([5.0, 7.0]))

    @gf.compile
    def step(x):
        old = a.data
        a.data, b.data = b.data + x, a.data - x
        shared = a.data
        shared.mul_(2)
        return a * 1, old + 0

    new, old = step(gf.tensor([1.0, 1.0]))
    assert new.tolist() == a.tolist() == [12.0, 16.0]
    assert old.tolist() == [1.0, 2.0] and b.tolist() == [0.0, 1.0]
    step(gf.tensor([1.0, 1.0]))
    assert a.tolist() == [2.0, 4.0] and b.tolist() == [11.0, 15.0]


def test_updates_by_hand_and_by_optimisers_after_assigned_data():
    def program(jit):
        model = linear()
        opt = optim.Adam(model.parameters(), lr=0.05)

        def step(x):
            for _ in range(2):
                for p in model.parameters():
                    p.data = p.data.clamp(-0.3, 0.3)
                opt.zero_grad()
                loss = model(x).square().mean()
                loss.backward()
                opt.step()
            for p in model.parameters():
                p.data = p.data - 0.1 * p.grad.data
                p.grad = None
            return loss

        step = jit(step)
        return [*(step(ramp(5, 4)) for _ in range(3)), *model.parameters()]

    agree(program, rtol=1e-5)


@pytest.mark.parametrize(
    ("assign", "message"),
    [
        (lambda a, b, x: setattr(a, "data", b.data), "share the memory"),
        (lambda a, b, x: setattr(a, "data", a.data.double()), "of the type f32"),
        (lambda a, b, x: setattr(a, "data", x[:1] * 2), "of the type f32"),
        (lambda a, b, x: setattr(x, "data", x * 2), "argument"),
    ],
)
def test_assignments_that_a_copy_cannot_stand_for_are_refused(assign, message):
    a, b = nn.Parameter(gf.tensor([1.0, 2.0])), nn.Parameter(gf.tensor([5.0, 7.0]))

    @gf.compile
    def step(x):
        assign(a, b, x)

    with pytest.raises(gf.TraceError, match=message) as caught:
        step(gf.zeros(2))
    assert "test_moved_data.py" in str(caught.value)
    assert a.tolist() == [1.0, 2.0] and b.tolist() == [5.0, 7.0]


def test_views_of_replaced_memory_are_not_returned():
    a = nn.Parameter(gf.tensor([1.0, 2.0]))

    @gf.compile
    def step():
        old = a.data
        a.data = old * 2
        return old

    with pytest.raises(gf.TraceError, match=r"clone\(\)"):
        step()
    assert a.tolist() == [1.0, 2.0]


def test_an_error_after_the_assignment_gives_the_memory_back():
    a = nn.Parameter(gf.tensor([1.0, 2.0]))

    @gf.compile
    def step():
        a.data = a.data * 2
        raise KeyError("mine")

    with pytest.raises(KeyError):
        step()
    assert a.tolist() == [1.0, 2.0] and (a * 2).tolist() == [2.0, 4.0]


@pytest.mark.parametrize("how", ["zero_", "optimiser"])
def test_gradients_left_at_zero_can_be_added_to_and_read(how):
    x, y = np.linspace(-1, 1, 12).reshape(4, 3), np.linspace(0, 1, 4)
    w = gf.zeros(3, dtype=gf.float64, requires_grad=True)
    opt = optim.SGD([w], lr=0.1)

    @gf.compile
    def step(x, y):
        loss = (x @ w - y).square().mean()
        loss.backward()
        with gf.no_grad():
            w.sub_(0.1 * w.grad)
            w.grad.zero_() if how == "zero_" else opt.zero_grad(set_to_none=False)
        return loss

    wanted = np.zeros(3)
    for _ in range(4):
        off = x @ wanted - y
        assert step(gf.tensor(x), gf.tensor(y)).item() == pytest.approx((off**2).mean())
        wanted -= 0.1 * 2 / 4 * x.T @ off
        np.testing.assert_allclose(w.detach().numpy(), wanted, rtol=1e-12)
        assert w.grad.tolist() == [0.0] * 3
    (w * 3).sum().backward()  # goes to what the next call must not keep
    assert w.grad.tolist() == [3.0] * 3
