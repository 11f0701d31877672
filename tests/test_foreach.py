"""Operations on lists of tensors, and what optimisers of people's own ask for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphflow as gf
from graphflow import nn, optim
from graphflow.errors import ShapeError
from graphflow.optim.optimizer import Optimizer, required

A, B = [np.array([1.0, 4.0]), np.array([[9.0]])], [np.array([2.0, 0.5]), np.array([[3.0]])]


def tensors(arrays: list[Any]) -> list[gf.Tensor]:
    return [gf.tensor(x.copy()) for x in arrays]


CASES: dict[str, tuple[Callable[[Any, Any], Any], Callable[[Any, Any], Any]]] = {
    "_foreach_sqrt": (lambda a, b: gf._foreach_sqrt(a), lambda a, b: np.sqrt(a)),
    "_foreach_mul": (lambda a, b: gf._foreach_mul(a, 0.5), lambda a, b: a * 0.5),
    "_foreach_add": (lambda a, b: gf._foreach_add(a, b, alpha=2), lambda a, b: a + 2 * b),
    "_foreach_div": (lambda a, b: gf._foreach_div(a, gf.tensor(4.0)), lambda a, b: a / 4),
    "_foreach_maximum": (lambda a, b: gf._foreach_maximum(a, b), np.maximum),
    "_foreach_lerp": (lambda a, b: gf._foreach_lerp(a, b, 0.25), lambda a, b: a + (b - a) / 4),
    "_foreach_pow": (lambda a, b: gf._foreach_pow(2.0, b), lambda a, b: 2.0**b),
    "_foreach_norm": (lambda a, b: gf._foreach_norm(a), lambda a, b: np.sqrt((a * a).sum())),
    "_foreach_addcmul": (
        lambda a, b: gf._foreach_addcmul(a, b, b, 0.5), lambda a, b: a + 0.5 * b * b
    ),
    "_foreach_addcdiv": (
        lambda a, b: gf._foreach_addcdiv(a, b, a, gf.tensor([2.0, 2.0])),
        lambda a, b: a + 2 * b / a,
    ),
}  # fmt: skip


@pytest.mark.parametrize("jit", [lambda f: f, gf.compile], ids=["eager", "compiled"])
@pytest.mark.parametrize("name", CASES)
def test_each_tensor_of_a_list(name: str, jit: Callable[[Any], Any]) -> None:
    call, formula = CASES[name]
    found = jit(call)(tensors(A), tensors(B))
    assert isinstance(found, list)
    for got, a, b in zip(found, A, B, strict=True):
        np.testing.assert_allclose(got.numpy(), formula(a, b), rtol=1e-6)


def test_in_place_ones_change_the_tensors() -> None:
    a = tensors(A)
    assert gf._foreach_mul_(a, [2.0, 3.0]) is None and a[1].tolist() == [[27]]
    gf._foreach_add_(a, 1)
    gf._foreach_addcmul_(a, tensors(B), tensors(B), value=2.0)
    np.testing.assert_allclose(a[0].numpy(), A[0] * 2 + 1 + 2 * B[0] ** 2)
    gf._foreach_copy_(a, tensors(B))
    assert gf.equal(a[0], gf.tensor(B[0]))
    gf._foreach_zero_(a)
    assert not any(t.any() for t in a)
    with pytest.raises(ShapeError, match="a list of 1 beside one of 2 tensors"):
        gf._foreach_add(a, [1.0])
    for wrong in ("_foreach_nothing", "_foreach_norm_", "_foreach_copy"):
        with pytest.raises(AttributeError, match=wrong):
            getattr(gf, wrong)


def test_options_without_a_default_have_to_be_given() -> None:
    class Own(Optimizer):
        def __init__(self, params: Any, lr: Any = required) -> None:
            super().__init__(params, {"lr": lr})

        def step(self, closure: Any = None) -> None:
            with gf.no_grad():
                for group in self.param_groups:
                    gf._foreach_sub_(
                        group["params"], [p.grad * group["lr"] for p in group["params"]]
                    )

    p = nn.Parameter(gf.ones(2))
    with pytest.raises(ValueError, match="Own: a parameter group needs 'lr'"):
        Own([p])
    assert repr(required) == "<required parameter>"
    opt = Own([{"params": [p], "lr": 0.5}])
    p.grad = gf.ones(2)
    opt.step()
    assert p.tolist() == [0.5, 0.5] and isinstance(opt, optim.Optimizer)
