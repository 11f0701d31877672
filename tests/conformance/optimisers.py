"""Optimisers and schedulers beside PyTorch's: the same steps from the same start."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.testing._internal.common_optimizers import optim_db

import graphflow as gf
from tests.conformance import convert, names, samples
from tests.conformance.outcome import Outcome

OPTIMISERS = """
SGD Adam AdamW Adafactor Adagrad Adadelta RMSprop Adamax NAdam RAdam LBFGS
""".split()
STEPS = 20
NEAR = 1e-5
SCHEDULERS: dict[str, list[dict[str, Any]]] = {
    "StepLR": [{"step_size": 3}, {"step_size": 2, "gamma": 0.5}],
    "MultiStepLR": [{"milestones": [2, 5, 5], "gamma": 0.3}],
    "ExponentialLR": [{"gamma": 0.9}],
    "CosineAnnealingLR": [{"T_max": 7}, {"T_max": 10, "eta_min": 0.01}],
    "CosineAnnealingWarmRestarts": [{"T_0": 4}, {"T_0": 3, "T_mult": 2, "eta_min": 0.01}],
    "LinearLR": [{}, {"start_factor": 0.5, "end_factor": 0.9, "total_iters": 6}],
    "ConstantLR": [{}, {"factor": 0.5, "total_iters": 4}],
    "PolynomialLR": [{"total_iters": 8, "power": 2.0}],
    "OneCycleLR": [
        {"max_lr": 1.0, "total_steps": 20},
        {"max_lr": 0.7, "epochs": 4, "steps_per_epoch": 5, "anneal_strategy": "linear"},
        {"max_lr": 0.5, "total_steps": 20, "three_phase": True, "pct_start": 0.4},
    ],
    "LambdaLR": [{"lr_lambda": lambda epoch: 0.95**epoch}],
    "ReduceLROnPlateau": [{"patience": 1}, {"mode": "max", "factor": 0.5, "cooldown": 2}],
}


def entries() -> list[str]:
    """``optim.<name>`` and ``optim.lr_scheduler.<name>``."""
    schedulers = [*SCHEDULERS, "SequentialLR"]
    return [f"optim.{n}" for n in OPTIMISERS] + [f"optim.lr_scheduler.{n}" for n in schedulers]


def run(key: str, mode: str, verbose: bool = False) -> Outcome:
    """Every set of options of an optimiser (eager, compiled) or scheduler (eager)."""
    outcome, name = Outcome(), key.rpartition(".")[2]
    if "lr_scheduler" in key:
        if mode == "eager":
            for options in SCHEDULERS.get(name, [{}]):
                outcome.check(f"{options}", lambda o=options: _schedule(name, o), verbose)
    elif mode == "eager" or (mode == "compiled" and name != "LBFGS"):
        info = next(i for i in optim_db if i.optim_cls is getattr(torch.optim, name))
        samples.seed()
        for drawn in info.optim_inputs_func("cpu"):
            check = lambda k=drawn.kwargs: _trajectory(name, k, mode == "compiled")  # noqa: E731
            outcome.check(f"{name}({drawn.kwargs})", check, verbose)
    return outcome


def _data() -> tuple[torch.Tensor, torch.Tensor, list[torch.Tensor]]:
    generator = torch.Generator().manual_seed(3)
    draw = lambda *shape: torch.randn(*shape, generator=generator)  # noqa: E731
    return draw(16, 5), draw(16, 3), [draw(8, 5) * 0.4, draw(8) * 0.1, draw(3, 8) * 0.4, draw(3)]


def _loss(x: Any, y: Any, p: list[Any]) -> Any:
    return (((x @ p[0].t() + p[1]).tanh() @ p[2].t() + p[3] - y) ** 2).mean()


def _trajectory(name: str, options: dict[str, Any], compiled: bool) -> str:
    x, y, start = _data()
    if name == "LBFGS":  # twenty searches a step magnify float32's rounding beyond any bound
        x, y, start = x.double(), y.double(), [t.double() for t in start]
    theirs = [t.clone().requires_grad_() for t in start]
    expected = _steps(theirs, getattr(torch.optim, name)(theirs, **options), x, y)
    ours = [convert.to_graphflow(t).requires_grad_() for t in start]
    given = convert.map_tree(options, convert.to_graphflow)
    optimizer = names.lookup(f"optim.{name}")(ours, **given)
    ready = gf.compile if compiled else lambda function: function
    arguments = convert.to_graphflow(x), convert.to_graphflow(y)
    found = _steps(ours, optimizer, *arguments, ready)
    for step, (mine, wanted) in enumerate(zip(found, expected, strict=True)):
        if not np.allclose(mine, wanted, NEAR, NEAR):
            return f"step {step}: parameters {np.abs(mine - wanted).max():.2g} apart"
    return ""


def _steps(
    parameters: list[Any], optimizer: Any, x: Any, y: Any, ready: Callable[..., Any] = lambda f: f
) -> list[Any]:
    """All parameters in one array, after every step."""

    def closure() -> Any:
        optimizer.zero_grad()
        loss = _loss(x, y, parameters)
        loss.backward()
        return loss

    def step() -> Any:
        if type(optimizer).__name__ == "LBFGS":
            return optimizer.step(closure)
        loss = closure()
        optimizer.step()
        return loss

    run_step, trajectory = ready(step), []
    for _ in range(STEPS):
        run_step()
        trajectory.append(
            np.concatenate([np.array(p.detach().numpy()).ravel() for p in parameters])
        )
    return trajectory


def _schedule(name: str, options: dict[str, Any]) -> str:
    start = _data()[2]
    expected = _rates(torch.optim, start, name, options)
    found = _rates(gf.optim, [convert.to_graphflow(t) for t in start], name, options)
    wrong = [i for i, (a, b) in enumerate(zip(found, expected)) if abs(a - b) > 1e-9]
    if not wrong:
        return ""
    return f"value {wrong[0]}: {found[wrong[0]]} instead of {expected[wrong[0]]}"


def _rates(optim: Any, parameters: list[Any], name: str, options: dict[str, Any]) -> list[float]:
    optimizer = optim.SGD([p.clone().requires_grad_() for p in parameters], lr=0.4, momentum=0.9)
    for parameter in optimizer.param_groups[0]["params"]:
        parameter.grad = None
    kinds = optim.lr_scheduler
    if name == "SequentialLR":
        parts = [kinds.LinearLR(optimizer, 0.1, total_iters=5), kinds.ExponentialLR(optimizer, 0.9)]
        scheduler = kinds.SequentialLR(optimizer, parts, milestones=[5])
    else:
        scheduler = getattr(kinds, name)(optimizer, **options)
    rates = []
    for step in range(STEPS):
        rates.append(float(optimizer.param_groups[0]["lr"]))
        rates.append(float(optimizer.param_groups[0]["momentum"]))
        if step == STEPS - 1:
            break
        optimizer.step()
        plateau = name == "ReduceLROnPlateau"
        scheduler.step(*([1.0 / (1 + min(step, 4))] if plateau else []))
    return rates
