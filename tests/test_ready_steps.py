"""Eager steps as programs: what single operations make of every state of the world."""

from __future__ import annotations

import copy
import pickle
import random
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import graphflow as gf
from graphflow import nn, optim
from graphflow.backends import cpu
from graphflow.optim import ready_steps
from tests.test_eager_functions import at_once  # noqa: F401  (programs are made at first steps)

SHAPES = [(3, 5), (7,), (2, 3, 4), (7,), ()]

KINDS: dict[str, Callable[[Any], optim.Optimizer]] = {
    "sgd": lambda p: optim.SGD(p, lr=0.1),
    "momentum": lambda p: optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01),
    "adam": lambda p: optim.Adam(p, lr=0.01, amsgrad=True, weight_decay=0.02),
    "adamw": lambda p: optim.AdamW(p, lr=0.01, maximize=True),
    "nadam": lambda p: optim.NAdam(p, lr=0.01),
    "radam": lambda p: optim.RAdam(p, lr=0.01),
    "adamax": lambda p: optim.Adamax(p, lr=0.01),
    "rmsprop": lambda p: optim.RMSprop(p, lr=0.01, momentum=0.5, centered=True),
    "adagrad": lambda p: optim.Adagrad(p, lr=0.1, lr_decay=0.1),
    "adadelta": lambda p: optim.Adadelta(p, lr=1.0),
    "rprop": lambda p: optim.Rprop(p, lr=0.01),
    "adafactor": lambda p: optim.Adafactor(p, lr=0.01),
    "lamb": lambda p: optim.LAMB(p, lr=0.01),
    "asgd": lambda p: optim.ASGD(p, lr=0.01, t0=2),
}


class Side:
    """Parameters and their optimiser, with steps by programs or by single operations."""

    def __init__(self, make: Callable[[Any], optim.Optimizer], ready: bool) -> None:
        rng = np.random.default_rng(1)
        self.ready = ready
        self.params = [gf.tensor(rng.standard_normal(s)).requires_grad_() for s in SHAPES]
        self.optimizer = make([{"params": self.params[:3]}, {"params": self.params[3:]}])

    def step(self, gradients: list[np.ndarray[Any, Any] | None]) -> None:
        for p, g in zip(self.params, gradients, strict=True):
            p.grad = None if g is None else gf.tensor(g)
        cpu.eager_kernels = self.ready
        self.optimizer.step()
        cpu.eager_kernels = True

    def values(self) -> list[np.ndarray[Any, Any]]:
        held = [self.optimizer.state.get(p, {}) for p in self.params]
        state = [slots[name] for slots in held for name in sorted(slots)]
        return [np.array(v.detach().numpy()) for v in (*self.params, *state)]


def played(optimizer: optim.Optimizer) -> int:
    """How many programs were made for the steps of an optimiser."""
    return sum(kind._made for kind in optimizer._ready_steps._kinds.values())


def gradients_of(rng: np.random.Generator, missing: int = -1) -> list[Any]:
    return [None if i == missing else rng.standard_normal(s) for i, s in enumerate(SHAPES)]


def change_rate(side: Side) -> None:
    side.optimizer.param_groups[1]["lr"] *= 0.5


def switch_decay(side: Side) -> None:
    group = side.optimizer.param_groups[0]
    if "weight_decay" in group:
        group["weight_decay"] = 0.0 if group["weight_decay"] else 0.1


def change_values(side: Side) -> None:
    with gf.no_grad():
        side.params[1].mul_(0.5)


def replace_memory(side: Side) -> None:
    side.params[0].data = side.params[0].detach().clone() + 1.0


def forget_state(side: Side) -> None:
    side.optimizer.state.clear()


def forget_some(side: Side) -> None:
    side.optimizer.state.pop(side.params[2], None)


def load_state(side: Side) -> None:
    side.optimizer.load_state_dict(side.optimizer.state_dict())


def replace_slots(side: Side) -> None:
    for slots in side.optimizer.state.values():
        for name, value in slots.items():
            slots[name] = value.clone()


def write_slots(side: Side) -> None:
    for slots in side.optimizer.state.values():
        for name, value in slots.items():
            if name != "step":
                value.mul_(0.9)


def move_parameter(side: Side) -> None:
    groups = side.optimizer.param_groups
    groups[1]["params"].append(groups[0]["params"].pop())
    if not groups[0]["params"]:
        groups[0]["params"], groups[1]["params"] = groups[1]["params"][:2], groups[1]["params"][2:]


def freeze(side: Side) -> None:
    side.params[3].requires_grad_(not side.params[3].requires_grad)


EVENTS: list[Callable[[Side], None]] = [
    change_rate, switch_decay, change_values, replace_memory, forget_state, forget_some,
    load_state, replace_slots, write_slots, move_parameter, freeze, *([lambda side: None] * 5),
]  # fmt: skip


@pytest.mark.parametrize("name", KINDS)
def test_a_program_makes_the_step_that_operations_make(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ready_steps, "MOST_PROGRAMS", 100)
    monkeypatch.setattr(ready_steps, "MOST_KINDS", 100)
    seed = random.randrange(1 << 30)
    print("seed", seed)
    rng, choice = np.random.default_rng(seed), random.Random(seed)
    quick, plain = Side(KINDS[name], True), Side(KINDS[name], False)
    for number in range(24):
        if number % 2:
            event = choice.choice(EVENTS)
            print(number, event.__name__)
            event(quick), event(plain)
        gradients = gradients_of(rng, choice.choice([-1, -1, -1, 0, 3]))
        quick.step(gradients), plain.step(gradients)
        for found, want in zip(quick.values(), plain.values(), strict=True):
            error = 1e-6 if found.dtype == "f" else 1e-9
            # A number near 0 is the difference of larger ones, whose rounding it keeps.
            largest = np.abs(want).max(initial=0.0)
            np.testing.assert_allclose(found, want, rtol=error, atol=error * largest)
    assert played(quick.optimizer) >= 1
    assert not any(kind._waits for kind in quick.optimizer._ready_steps._kinds.values())


def test_one_program_serves_all_steps_and_rates() -> None:
    side = Side(KINDS["adamw"], True)
    schedule = optim.lr_scheduler.CosineAnnealingLR(side.optimizer, 10)
    rng = np.random.default_rng(2)
    for _ in range(10):
        side.step(gradients_of(rng))
        schedule.step()
    assert played(side.optimizer) == 1


def test_a_thread_makes_the_program_beside_steps() -> None:
    gf.use_deterministic_algorithms(False)
    side = Side(KINDS["momentum"], True)
    side.optimizer.param_groups[0]["momentum"] = random.random()
    side.params.append(gf.zeros(random.randrange(3, 10_000), dtype=gf.float64).requires_grad_())
    side.optimizer.param_groups[1]["params"].append(side.params[-1])  # no cache has this one
    gradients = [np.ones(p.shape) for p in side.params]
    for _ in range(ready_steps.OFTEN):
        assert not played(side.optimizer)
        side.step(gradients)
    (kind,) = side.optimizer._ready_steps._kinds.values()
    end = time.monotonic() + 200
    while kind._waits and time.monotonic() < end:
        side.step(gradients)
        time.sleep(0.002)
    before = kind._missed
    side.step(gradients)
    assert not kind._waits and kind._missed == before and played(side.optimizer) == 1


def test_copies_have_programs_of_their_own() -> None:
    side = Side(KINDS["adam"], True)
    rng = np.random.default_rng(3)
    side.step(gradients_of(rng))
    other, before = copy.deepcopy(side), side.values()
    assert played(side.optimizer) and not played(other.optimizer)
    other.step(gradients_of(rng))
    for now, then in zip(side.values(), before, strict=True):
        np.testing.assert_array_equal(now, then)
    assert not np.array_equal(other.values()[0], before[0])
    assert not played(pickle.loads(pickle.dumps(side.optimizer)))


def test_an_optimizer_of_the_user_is_left_alone() -> None:
    class Counting(optim.SGD):
        updates = 0

        def update(self, *args: Any) -> None:
            self.updates += 1
            super().update(*args)

    side = Side(lambda p: Counting(p, lr=0.1), True)
    for _ in range(3):
        side.step(gradients_of(np.random.default_rng(4)))
    assert side.optimizer.updates == 3 * len(SHAPES) and not played(side.optimizer)


def test_what_cannot_be_compiled_goes_on_with_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **options: Any) -> Any:
        raise gf.GraphFlowError("no")

    monkeypatch.setattr("graphflow.program.Program.from_capture", refuse)
    side, plain = Side(KINDS["sgd"], True), Side(KINDS["sgd"], False)
    gradients = gradients_of(np.random.default_rng(5))
    with pytest.warns(UserWarning, match="eager step stays with NumPy.*no"):
        side.step(gradients)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        side.step(gradients)
    plain.step(gradients), plain.step(gradients)
    for found, want in zip(side.values(), plain.values(), strict=True):
        np.testing.assert_array_equal(found, want)


def test_the_state_goes_when_the_optimizer_does() -> None:
    import gc
    import weakref

    side = Side(KINDS["adam"], True)
    side.step(gradients_of(np.random.default_rng(6)))
    kept = weakref.ref(side.optimizer)
    gc.disable()
    try:
        del side
        assert kept() is None
    finally:
        gc.enable()


@pytest.fixture
def single_operations() -> Iterator[None]:
    cpu.eager_kernels = False
    yield


def test_gradients_lie_in_memory_as_their_parameters(single_operations: None) -> None:
    conv = nn.Conv2d(3, 8, 3)
    conv(gf.randn(2, 3, 9, 9)).square().sum().backward()
    assert conv.weight.grad is not None and conv.weight.grad.is_contiguous()
    x = gf.randn(4, 3, requires_grad=True)
    (x.t() * gf.randn(3, 4)).sum().backward()
    assert x.grad is not None and x.grad.is_contiguous()


def test_a_compiled_step_serves_gradients_of_convolutions(single_operations: None) -> None:
    conv = nn.Conv2d(3, 8, 3)
    optimizer = optim.SGD(conv.parameters(), lr=0.1)
    step = gf.compile(optimizer.step)
    for _ in range(3):
        optimizer.zero_grad()
        conv(gf.randn(2, 3, 9, 9)).square().sum().backward()
        step()
    assert len(step.programs) == 1
