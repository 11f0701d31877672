"""Modules compiled in place: ``module.compile()``, and compiled ones as parts of others."""

from __future__ import annotations

import copy
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphflow as gf
from graphflow import nn, optim


def block(width: int = 6) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, width), nn.Tanh(), nn.Dropout(0.2))


def model() -> nn.Sequential:
    gf.manual_seed(1)
    return nn.Sequential(block(), block(), nn.Linear(6, 2)).double()


def trained(made: nn.Module, call: Callable[..., gf.Tensor]) -> list[float]:
    gf.manual_seed(2)
    optimizer = optim.Adam(made.parameters(), 1e-2)
    losses = []
    for _ in range(4):
        optimizer.zero_grad()
        loss = call(gf.randn(5, 6, dtype=gf.float64)).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def calls(compiled: Any) -> int:
    """Programs that a module compiled in place has made."""
    return len(compiled._compiled.programs)


def in_place(made: nn.Sequential) -> nn.Module:
    for part in (made[0], made[1]):
        part.compile()
    return made


def by_assignment(made: nn.Sequential) -> nn.Module:
    made[0] = gf.compile(made[0])
    made[1] = gf.compile(made[1])
    return made


def from_the_start(made: nn.Sequential) -> nn.Module:
    return nn.Sequential(gf.compile(made[0]), gf.compile(made[1]), made[2])


@pytest.mark.parametrize("change", [in_place, by_assignment, from_the_start])
def test_parts_are_programs(change: Callable[[nn.Sequential], nn.Module]) -> None:
    want = trained(plain := model(), plain)
    changed: Any = change(model())
    np.testing.assert_allclose(trained(changed, changed), want, rtol=1e-10)
    assert calls(changed[0]) == calls(changed[1]) == 1
    assert list(changed.state_dict()) == list(plain.state_dict())
    assert [type(m) for m in changed.modules()] == [type(m) for m in plain.modules()]


def test_the_whole_is_one_program_though_parts_are_compiled() -> None:
    want = trained(plain := model(), plain)
    made: Any = in_place(model())
    whole = gf.compile(made)
    np.testing.assert_allclose(trained(made, whole), want, rtol=1e-10)
    assert len(whole.programs) == 1 and calls(made[0]) == 0


def test_a_model_compiles_itself() -> None:
    want = trained(plain := model(), plain)
    made = model()
    assert made.compile(dynamic=False) is None
    np.testing.assert_allclose(trained(made, made), want, rtol=1e-10)
    assert calls(made) == 1
    made.eval()
    made(gf.zeros(5, 6, dtype=gf.float64))
    assert calls(made) == 2


def test_copies_are_compiled_by_themselves() -> None:
    made: Any = by_assignment(model())
    trained(made, made)
    other = copy.deepcopy(made)
    assert other[0]._compiled is not made[0]._compiled
    assert other[0]._compiled.original is other[0]
    with gf.no_grad():
        other[0][0].weight.zero_()
    x = gf.randn(5, 6, dtype=gf.float64)
    assert not np.allclose(made.eval()(x).detach().numpy(), other.eval()(x).detach().numpy())


@pytest.mark.filterwarnings("ignore:create_graph=True")
def test_second_derivatives_and_comparisons_run_operations() -> None:
    gf.manual_seed(3)
    plain = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 1)).double()
    made = copy.deepcopy(plain)
    made.compile()
    found = []
    for each in (made, plain):
        x = gf.linspace(-1, 1, 12, dtype=gf.float64).reshape(3, 4).requires_grad_()
        (slope,) = gf.autograd.grad(each(x).sum(), x, create_graph=True)
        slope.square().sum().backward()
        assert x.grad is not None
        found.append(x.grad.numpy())
    np.testing.assert_allclose(*found, rtol=1e-10)
    assert gf.verify(made, gf.randn(3, 4, dtype=gf.float64))


def test_setting_a_tensor_imports_none_of_its_methods() -> None:
    code = (
        "import sys, graphflow as gf\n"
        "model = gf.nn.Linear(2, 2)\n"
        "model.scale, model.weight = gf.ones(2), gf.nn.Parameter(gf.ones(2, 2))\n"
        "assert 'graphflow.linalg' not in sys.modules, 'a second process takes 11 ms longer'\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)


def test_a_training_step_imports_nothing_rare() -> None:
    """Asking a tensor for an attribute that it lacks imports all modules of functions."""
    code = (
        "import sys, graphflow as gf\n"
        "model = gf.nn.Sequential(gf.nn.Linear(4, 3), gf.nn.BatchNorm1d(3), gf.nn.ReLU())\n"
        "optimizer = gf.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)\n"
        "def step(x, y):\n"
        "    optimizer.zero_grad()\n"
        "    loss = gf.nn.functional.cross_entropy(model(x), y)\n"
        "    loss.backward()\n"
        "    optimizer.step()\n"
        "    return loss\n"
        "gf.trace(step, gf.randn(5, 4), gf.arange(5) % 3)\n"
        "rare = ('linalg', 'fft', 'functions.special', 'functions.control', 'ir.entries')\n"
        "print([name for name in rare if f'graphflow.{name}' in sys.modules])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, timeout=300, capture_output=True, text=True
    )
    assert done.stdout.strip() == "[]", done.stdout


def test_what_is_no_module_is_refused() -> None:
    made = model()
    with pytest.raises(TypeError, match="cannot assign"):
        made[0] = gf.compile(lambda x: x)
