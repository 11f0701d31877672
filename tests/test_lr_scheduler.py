"""Schedules against their closed forms, states that continue, compiled steps that follow."""

import math

import numpy as np
import pytest

import graphflow as gf
from graphflow import nn, optim
from graphflow.optim import lr_scheduler as L
from tests.front import Counted, linear, ramp, training_step

EPOCHS = 20
pytestmark = pytest.mark.filterwarnings("ignore:lr_scheduler.step")


def optimizer(kind=optim.SGD, **options):
    options = options or {"lr": 0.1}
    groups = [{"params": [nn.Parameter(gf.zeros(1))]} for _ in range(2)]
    groups[1]["lr"] = 0.04
    return kind(groups, **options)


def walk(opt, schedule, epochs=EPOCHS):
    """The first group's rates, before each step."""
    rates = []
    for _ in range(epochs):
        first, second = (group["lr"] for group in opt.param_groups)
        assert schedule.get_last_lr() == [first, second]
        rates.append(first)
        schedule.step()
    return rates


def cosine(e, span, low=0.0, high=0.1):
    return low + (high - low) * (1 + math.cos(math.pi * e / span)) / 2


def restart(e):
    for span in (3, 6, 12):
        if e < span:
            return cosine(e, span, 0.01)
        e -= span
    raise AssertionError


def triangle(e, height=1.0):
    place = e % 8
    share = place / 3 if place <= 3 else (8 - place) / 5
    return 0.01 + 0.19 * share * height


def one_cycle(e):
    if e <= 5:
        return 0.7 + (0.028 - 0.7) / 2 * (1 + math.cos(math.pi * e / 5))
    low = 0.028 / 1e4
    return low + (0.7 - low) / 2 * (1 + math.cos(math.pi * (e - 5) / 14))


SCHEDULES = {
    "StepLR": (lambda o: L.StepLR(o, 3, 0.5), lambda e: 0.1 * 0.5 ** (e // 3)),
    "MultiStepLR": (
        lambda o: L.MultiStepLR(o, [2, 7, 7], 0.5),
        lambda e: 0.1 * 0.5 ** ((e >= 2) + 2 * (e >= 7)),
    ),
    "ConstantLR": (lambda o: L.ConstantLR(o, 0.25, 4), lambda e: 0.1 * (0.25 if e < 4 else 1)),
    "LinearLR": (
        lambda o: L.LinearLR(o, 0.2, 0.8, 6),
        lambda e: 0.1 * (0.2 + 0.6 * min(e, 6) / 6),
    ),
    "ExponentialLR": (lambda o: L.ExponentialLR(o, 0.9), lambda e: 0.1 * 0.9**e),
    "PolynomialLR": (lambda o: L.PolynomialLR(o, 8, 2.0), lambda e: 0.1 * (1 - min(e, 8) / 8) ** 2),
    "LambdaLR": (
        lambda o: L.LambdaLR(o, [lambda e: 1 / (e + 1), lambda e: 1.0]),
        lambda e: 0.1 / (e + 1),
    ),
    "MultiplicativeLR": (lambda o: L.MultiplicativeLR(o, lambda e: 0.9), lambda e: 0.1 * 0.9**e),
    "CosineAnnealingLR": (
        lambda o: L.CosineAnnealingLR(o, 6, 0.01),
        lambda e: cosine(e, 6, 0.01),
    ),
    "CosineAnnealingWarmRestarts": (
        lambda o: L.CosineAnnealingWarmRestarts(o, 3, 2, 0.01),
        restart,
    ),
    "CyclicLR": (lambda o: L.CyclicLR(o, 0.01, 0.2, 3, 5, cycle_momentum=False), triangle),
    "CyclicLR halved": (
        lambda o: L.CyclicLR(o, 0.01, 0.2, 3, 5, "triangular2", cycle_momentum=False),
        lambda e: triangle(e, 0.5 ** (e // 8)),
    ),
    "OneCycleLR": (
        lambda o: L.OneCycleLR(o, 0.7, 20, cycle_momentum=False),
        one_cycle,
    ),
    "SequentialLR": (
        lambda o: L.SequentialLR(o, [L.ConstantLR(o, 0.5, 9), L.ExponentialLR(o, 0.9)], [4]),
        lambda e: 0.05 if e < 4 else 0.1 * 0.9 ** (e - 4),
    ),
    "ChainedScheduler": (
        lambda o: L.ChainedScheduler([L.ConstantLR(o, 0.5, 4), L.ExponentialLR(o, 0.9)]),
        lambda e: 0.1 * 0.9**e * (0.5 if e < 4 else 1),
    ),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_rates_follow_the_closed_form(name):
    make, rate = SCHEDULES[name]
    opt = optimizer()
    found = walk(opt, make(opt))
    np.testing.assert_allclose(found, [rate(e) for e in range(EPOCHS)], rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_saved_schedule_continues(name):
    make, rate = SCHEDULES[name]
    opt, other = optimizer(), optimizer()
    schedule, twin = make(opt), make(other)
    walk(opt, schedule, 5)
    state, groups = schedule.state_dict(), opt.state_dict()
    assert "optimizer" not in state
    twin.load_state_dict(state)
    other.load_state_dict(groups)
    expected = [rate(e) for e in range(5, 15)]
    np.testing.assert_allclose(walk(other, twin, 10), expected, rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("name", ["StepLR", "MultiStepLR", "LinearLR", "ExponentialLR"])
def test_an_epoch_can_be_gone_to(name):
    make, rate = SCHEDULES[name]
    opt = optimizer()
    schedule = make(opt)
    for epoch in (7, 2, 11):
        schedule.step(epoch)
        assert opt.param_groups[0]["lr"] == pytest.approx(rate(epoch))


def test_momentum_goes_against_the_rate():
    opt = optimizer(lr=0.1, momentum=0.9)
    schedule = L.OneCycleLR(opt, 1.0, 10, pct_start=0.5, anneal_strategy="linear")
    found = []
    for _ in range(10):
        found.append(opt.param_groups[0]["momentum"])
        schedule.step()
    np.testing.assert_allclose(found[:5], np.linspace(0.95, 0.85, 5))
    np.testing.assert_allclose(found[4:], np.linspace(0.85, 0.95, 6))
    adam = optimizer(optim.Adam)
    L.CyclicLR(adam, 0.01, 0.1, 4).step()
    assert adam.param_groups[0]["betas"] == pytest.approx((0.875, 0.999))
    with pytest.raises(ValueError, match="20 steps"):
        walk(opt, L.OneCycleLR(opt, 1.0, 20), 22)


def test_a_plateau_lowers_the_rate():
    opt = optimizer()
    schedule = L.ReduceLROnPlateau(opt, factor=0.5, patience=1, cooldown=1, min_lr=[0.02, 0.03])
    found = []
    for loss in (1.0, 0.9, 0.9, 0.95, 0.9, 0.9, 0.9, 0.5, 0.6, 0.6, 0.6, 0.6, 0.6, 0.6):
        schedule.step(gf.tensor(loss))
        found.append(opt.param_groups[0]["lr"])
    halves = [0.1] * 3 + [0.05] * 3 + [0.025] * 3 + [0.02] * 5
    np.testing.assert_allclose(found, [*halves])
    assert opt.param_groups[1]["lr"] == 0.03
    up = L.ReduceLROnPlateau(optimizer(), "max", threshold_mode="abs", threshold=0.5)
    assert up.is_better(2.0, 1.4) and not up.is_better(2.0, 1.6)


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda o: L.LambdaLR(o, [lambda e: 1.0]), ValueError),
        (lambda o: L.StepLR(o, 3, last_epoch=4), KeyError),
        (lambda o: L.CyclicLR(o, 0.1, 0.2, mode="square"), ValueError),
        (lambda o: L.CyclicLR(optimizer(optim.Adagrad), 0.1, 0.2), ValueError),
        (lambda o: L.OneCycleLR(o, 0.1), ValueError),
        (lambda o: L.OneCycleLR(o, 0.1, 10, pct_start=2.0), ValueError),
        (lambda o: L.ReduceLROnPlateau(o, factor=1.0), ValueError),
        (lambda o: L.SequentialLR(o, [L.ExponentialLR(o, 0.9)], [3]), ValueError),
        (lambda o: L.ChainedScheduler([]), ValueError),
        (lambda o: L.ChainedScheduler([L.ExponentialLR(optimizer(), 0.9)], o), ValueError),
        (lambda o: L.ConstantLR(o, 2.0), ValueError),
        (lambda o: L.LinearLR(o, 0.0), ValueError),
    ],
)
def test_bad_input(make, error):
    with pytest.raises(error):
        make(optimizer())


def test_a_compiled_step_follows_its_schedule_without_another_trace():
    model = linear()
    opt = optim.Adam(model.parameters(), lr=0.1)
    schedule = L.OneCycleLR(opt, 0.5, 8)  # moves the rate and the first beta
    loss = Counted(lambda out: (out * out).mean())
    step = training_step(model, opt, gf.compile, loss)
    twin = linear()
    twin_opt = optim.Adam(twin.parameters(), lr=0.1)
    twin_schedule = L.OneCycleLR(twin_opt, 0.5, 8)
    eager = training_step(twin, twin_opt, lambda f: f)
    for _ in range(7):
        assert step(ramp(5, 4)).item() == pytest.approx(eager(ramp(5, 4)).item(), rel=1e-4)
        schedule.step()
        twin_schedule.step()
    assert loss.runs == 1


@pytest.mark.parametrize("kind", [
    lambda opt: L.StepLR(opt, 1), lambda opt: L.ExponentialLR(opt, 0.5),
    lambda opt: L.CosineAnnealingWarmRestarts(opt, 3), lambda opt: L.OneCycleLR(opt, 0.1, 5),
])  # fmt: skip
@pytest.mark.parametrize("lr", [0.1, gf.tensor(0.1)])
def test_a_schedule_inside_a_compiled_step_is_refused(kind, lr):
    """Its epochs would be counted once, whatever the rate is made of."""
    model = linear()
    opt = optim.SGD(model.parameters(), lr=lr)
    schedule = kind(opt)
    before = [float(rate) for rate in schedule.get_last_lr()]

    @gf.compile
    def step(x):
        opt.zero_grad()
        loss = (model(x) ** 2).sum()
        loss.backward()
        opt.step()
        schedule.step()
        return loss

    with pytest.raises(gf.errors.TraceError, match="step the scheduler, outside"):
        step(ramp(5, 4))
    assert [float(rate) for rate in schedule.get_last_lr()] == before


@pytest.mark.filterwarnings("error")
def test_a_schedule_ahead_of_its_optimiser_is_warned_of_once():
    opt = optimizer()
    schedule = L.StepLR(opt, 3)
    with pytest.warns(UserWarning, match=r"before optimizer\.step") as found:
        schedule.step()
    assert len(found) == 1 and found[0].filename == __file__
    schedule.step()

    class Own(optim.SGD):
        def step(self, closure=None):
            return None

    for kind in (optim.SGD, Own):
        opt = optimizer(kind)
        schedule = L.SequentialLR(opt, [L.ConstantLR(opt), L.ExponentialLR(opt, 0.9)], [2])
        gf.compile(opt.step)() if kind is optim.SGD else opt.step()
        schedule.step()
