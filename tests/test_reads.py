"""What code reads of objects takes effect when it changes, however the code came by them."""

from __future__ import annotations

import argparse
import collections
import types
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphflow as gf
from graphflow import nn, optim


class Options:
    """An object with attributes."""

    def __init__(self, **options: Any) -> None:
        self.__dict__.update(options)

    @property
    def doubled(self) -> Any:
        return 2 * self.factor

    def scaled(self, x: Any) -> Any:
        return x * self.factor

    @gf.compile
    def decorated(self, x: Any) -> Any:
        return self.scaled(x)


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.options, self.table = Options(factor=2.0), {"factor": 2.0}

    @gf.compile
    def with_options(self, x: Any) -> Any:
        return x * self.options.factor

    @gf.compile
    def with_table(self, x: Any) -> Any:
        return self.looked_up(x)

    def looked_up(self, x: Any) -> Any:
        return x * self.table["factor"]


def helper(options: Any, x: Any) -> Any:
    return x * options.factor


def _options(function: Callable[..., Any], options: Any) -> Any:
    return gf.compile(function), options, lambda: setattr(options, "factor", 3.0)


def _inside(function: Callable[..., Any], changed: Any, **around: Any) -> Any:
    return gf.compile(function), Options(**around), lambda: setattr(changed, "factor", 3.0)


def argument() -> Any:
    return _options(lambda o, x: x * o.factor, Options(factor=2.0))


def argument_of_a_helper() -> Any:
    return _options(lambda o, x: helper(o, x), Options(factor=2.0))


def method_of_an_argument() -> Any:
    return _options(lambda o, x: o.scaled(x), Options(factor=2.0))


def property_of_an_argument() -> Any:
    return _options(lambda o, x: x * o.doubled / 2, Options(factor=2.0))


def object_in_an_argument() -> Any:
    inner = Options(factor=2.0)
    return _inside(lambda o, x: x * o.inner.factor, inner, inner=inner)


def list_in_an_argument() -> Any:
    inner = Options(factor=2.0)
    return _inside(lambda o, x: x * o.inner[0].factor, inner, inner=[inner])


def outer_object_of_a_helper() -> Any:
    options = Options(factor=2.0)
    compiled, _, change = _options(lambda _, x: helper(options, x), options)
    return compiled, None, change


def default_of_a_function() -> Any:
    options = Options(factor=2.0)

    def scaled(_: Any, x: Any, o: Any = options) -> Any:
        return x * o.factor

    return gf.compile(scaled), None, lambda: setattr(options, "factor", 3.0)


@pytest.mark.parametrize("kind", [types.SimpleNamespace, argparse.Namespace])
def test_namespaces_of_options_are_read(kind: Any) -> None:
    options = kind(factor=2.0)
    scaled = gf.compile(lambda x: x * options.factor)
    assert scaled(gf.ones(1)).item() == 2.0
    options.factor = 3.0
    assert scaled(gf.ones(1)).item() == 3.0


WAYS = [
    argument, argument_of_a_helper, method_of_an_argument, property_of_an_argument,
    object_in_an_argument, list_in_an_argument, outer_object_of_a_helper, default_of_a_function,
]  # fmt: skip


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_a_changed_attribute_takes_effect(way: Callable[[], Any]) -> None:
    compiled, given, change = way()
    for _ in range(2):
        assert compiled(given, gf.ones(1)).item() == 2.0
    change()
    for _ in range(2):
        assert compiled(given, gf.ones(1)).item() == 3.0
    assert len(compiled.programs) == 2


def test_methods_decorated_in_their_class_read_their_object() -> None:
    first, second = Options(factor=2.0), Options(factor=5.0)
    assert [o.decorated(gf.ones(1)).item() for o in (first, second)] == [2.0, 5.0]
    first.factor = 3.0
    assert [o.decorated(gf.ones(1)).item() for o in (first, second)] == [3.0, 5.0]


@pytest.mark.parametrize("name", ["with_options", "with_table"])
def test_methods_of_modules_read_what_hangs_on_them(name: str) -> None:
    layer = Layer()
    assert getattr(layer, name)(gf.ones(1)).item() == 2.0
    layer.options.factor = layer.table["factor"] = 3.0
    assert getattr(layer, name)(gf.ones(1)).item() == 3.0


CONTAINERS: dict[str, tuple[Any, Any, Callable[[Any], Any]]] = {
    "defaultdict": (
        collections.defaultdict(float, a=2.0), lambda c: c["a"], lambda c: c.update(a=3.0),
    ),
    "OrderedDict": (
        collections.OrderedDict(a=2.0), lambda c: c["a"], lambda c: c.update(a=3.0),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CONTAINERS)
def test_containers_of_the_standard_library_are_read(name: str) -> None:
    container, look, change = CONTAINERS[name]
    scaled = gf.compile(lambda x: x * look(container))
    assert scaled(gf.ones(1)).item() == 2.0
    change(container)
    assert scaled(gf.ones(1)).item() == 3.0


class Trainer:
    """Counts and keeps what its step does not read."""

    def __init__(self) -> None:
        self.model = nn.Linear(3, 2)
        self.optimizer = optim.SGD(self.model.parameters(), lr=0.1)
        self.steps, self.losses, self.sum, self.total = 0, list[float](), 0.0, gf.zeros(())

    @gf.compile
    def step(self, x: Any) -> Any:
        loss = self.model(x).sum()  # calls a sum, which is not this object's number
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.total += loss.detach()
        return loss


def test_what_a_step_does_not_read_is_no_reason_to_trace_again() -> None:
    trainer, wanted = Trainer(), 0.0
    for i in range(4):
        loss = trainer.step(gf.ones(2, 3)).item()
        wanted += loss
        trainer.steps, trainer.sum = i + 1, trainer.sum + loss
        trainer.losses.append(loss)
        trainer.optimizer.param_groups[0]["lr"] *= 0.5
    np.testing.assert_allclose(trainer.total.item(), wanted, rtol=1e-5)
    assert len(Trainer.__dict__["step"].programs) == 1


class Driver:
    """Its call runs the compiled function, which is kept in a table."""

    def __init__(self) -> None:
        self.factor, self.programs = 2.0, dict[int, Any]()

    def __call__(self, x: Any, count: int) -> Any:
        if count not in self.programs:
            self.programs[count] = gf.compile(lambda x: x * self.factor * count)
        return self.programs[count](x)


def test_who_runs_a_compiled_function_is_not_read_for_it() -> None:
    driver = Driver()
    assert [driver(gf.ones(1), n).item() for n in (1, 2, 3, 1, 2)] == [2.0, 4.0, 6.0, 2.0, 4.0]
    assert all(len(program.programs) == 1 for program in driver.programs.values())
