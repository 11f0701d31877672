"""What hangs on a module or an optimiser and is changed in place between calls takes effect."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphflow as gf
from graphflow import nn, optim
from graphflow.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)
from tests.front import ramp


def model() -> Any:
    gf.manual_seed(0)
    made: Any = nn.Sequential(nn.Linear(3, 3), nn.Tanh())
    made.inner = nn.Module()
    made.config = {"shift": 1.0, "on": True}
    made.inner.numbers = [1.0, 2.0]
    return made


def forward(made: Any) -> Callable[[gf.Tensor], gf.Tensor]:
    def run(x: gf.Tensor) -> gf.Tensor:
        for part in made[:2]:
            x = part(x)
        if made.config.get("on"):
            x = x * sum(made.inner.numbers)
        return -x if "flipped" in made.config else x + made.config["shift"]

    return run


CHANGES: dict[str, Callable[[Any], Any]] = {
    "a value of a dictionary": lambda m: m.config.update(shift=5.0),
    "a flag of a dictionary": lambda m: m.config.update(on=False),
    "a new key": lambda m: m.config.update(flipped=True),
    "a list of a part": lambda m: m.inner.numbers.append(4.0),
    "an item of that list": lambda m: m.inner.numbers.__setitem__(0, 9.0),
    "a forward function of one module": lambda m: setattr(m[0], "forward", lambda x: x * 3),
    "and one that replaces it": lambda m: setattr(m[1], "forward", m[0].forward),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_in_place_takes_effect(name: str) -> None:
    x, found = ramp(4, 3), []
    for compiled in (False, True):
        made = model()
        run = forward(made)
        run = gf.compile(run) if compiled else run
        before = run(x).detach().numpy().copy()
        CHANGES[name](made)
        found.append([run(x).detach().numpy().copy() for _ in range(2)])
        assert abs(found[-1][0] - before).max() > 0.1
    np.testing.assert_allclose(found[1], found[0], rtol=1e-5, atol=1e-6)


def test_a_group_of_parameters_that_had_gradients_before_it_was_added() -> None:
    weights = []
    for compiled in (False, True):
        gf.manual_seed(3)
        first, second = nn.Linear(3, 3), nn.Linear(3, 2)
        opt = optim.SGD(first.parameters(), lr=0.1)

        def step(x, first=first, second=second, opt=opt):
            opt.zero_grad()
            second.zero_grad()
            loss = second(first(x)).square().mean()
            loss.backward()
            opt.step()
            return loss

        run = gf.compile(step) if compiled else step
        for number in range(5):
            run(ramp(4, 3))
            if number == 1:
                opt.add_param_group({"params": second.parameters(), "lr": 0.5})
            if number == 3:
                opt.register_step_pre_hook(
                    lambda opt, *_: opt.param_groups[0]["params"][1].grad.mul_(3)
                )
        weights.append(
            [p.detach().numpy().copy() for p in (*first.parameters(), *second.parameters())]
        )
    for eager, static in zip(*weights, strict=True):
        np.testing.assert_allclose(static, eager, rtol=1e-5, atol=1e-6)


class _Slow(optim.Optimizer):
    def step(self, closure: Any = None) -> None:
        with gf.no_grad():
            for p in self.param_groups[0]["params"]:
                p.sub_(p.grad, alpha=self.param_groups[0]["lr"])


def _halve(optimizer: Any, *_: Any) -> None:
    for p in optimizer.param_groups[0]["params"]:
        p.grad.mul_(0.5)


def _no_further_than_zero(optimizer: Any, *_: Any) -> None:
    with gf.no_grad():
        for p in optimizer.param_groups[0]["params"]:
            p.clamp_(min=0.0)


@pytest.mark.parametrize("compiled", [False, True])
def test_hooks_on_the_steps_of_all_optimisers(compiled: bool) -> None:
    for kind in (optim.SGD, _Slow):
        w = gf.tensor([1.0], requires_grad=True)
        opt = kind([w], {"lr": 0.5}) if kind is _Slow else kind([w], lr=0.5)

        def step(w: gf.Tensor = w, opt: Any = opt) -> None:
            opt.zero_grad()
            w.square().sum().backward()
            opt.step()

        run, found = gf.compile(step) if compiled else step, []
        for hooked in (False, True, False):
            hook = register_optimizer_step_pre_hook(_halve) if hooked else None
            run()
            found.append(w.item())
            if hook is not None:
                hook.remove()
            with gf.no_grad():
                w.fill_(1.0)
        assert found == [0.0, 0.5, 0.0]
        after = register_optimizer_step_post_hook(_no_further_than_zero)
        opt.param_groups[0]["lr"] = 2.0
        run()
        after.remove()
        assert w.item() == 0.0


def test_a_class_of_modules_may_be_reached_by_name() -> None:
    class Scaled(nn.Module):
        factors: tuple[float, ...] = (2.0, 3.0)

        def forward(self, x: gf.Tensor) -> gf.Tensor:
            return x * sum(Scaled.factors)

    made = Scaled()
    run = gf.compile(lambda x: made(x) if isinstance(made, Scaled) else x)
    assert run(gf.ones(2)).tolist() == [5.0, 5.0]
    Scaled.factors = (1.0,)
    assert run(gf.ones(2)).tolist() == [1.0, 1.0]
