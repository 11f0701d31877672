"""What code reads of objects takes effect when it changes, however the code came by them."""

from __future__ import annotations

import argparse
import collections
import functools
import time
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

    def itself(self) -> Any:
        return self

    @staticmethod
    def by(options: Any, x: Any) -> Any:
        return x * options.factor

    def __mul__(self, x: Any) -> Any:
        return x * self.factor

    def __getitem__(self, name: str) -> Any:
        return self.__dict__[name]

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    @gf.compile
    def decorated(self, x: Any) -> Any:
        return self.scaled(x)


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.options, self.table, self.factor = Options(factor=2.0), {"factor": 2.0}, 2.0

    @gf.compile
    def with_options(self, x: Any) -> Any:
        return x * self.options.factor

    @gf.compile
    def with_table(self, x: Any) -> Any:
        return self.looked_up(x)

    @gf.compile
    def with_number(self, x: Any) -> Any:
        return x * self.factor

    def looked_up(self, x: Any) -> Any:
        return x * self.table["factor"]


class Derived(Options):
    """Computes as its base class does."""

    def scaled(self, x: Any) -> Any:
        return super().scaled(x)


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


def operator_of_an_argument() -> Any:
    return _options(lambda o, x: o * x, Options(factor=2.0))


def static_method_of_an_argument() -> Any:
    return _options(lambda o, x: o.by(o, x), Options(factor=2.0))


def result_of_a_method() -> Any:
    return _options(lambda o, x: x * o.itself().factor, Options(factor=2.0))


def method_of_the_base_class() -> Any:
    return _options(lambda o, x: o.scaled(x), Derived(factor=2.0))


def context() -> Any:
    def scaled(o: Any, x: Any) -> Any:
        with o as inside:
            return x * inside.factor

    return _options(scaled, Options(factor=2.0))


def attribute_by_name() -> Any:
    return _options(lambda o, x: x * getattr(o, "factor"), Options(factor=2.0))  # noqa: B009


def either_of_two() -> Any:
    inner = Options(factor=2.0)
    return _inside(lambda o, x: x * (o.a if o.b is None else o.b).factor, inner, a=inner, b=None)


def alias() -> Any:
    inner = Options(factor=2.0)

    def scaled(o: Any, x: Any) -> Any:
        first = second = o.inner
        return x * first.factor + 0 * second.factor

    return _inside(scaled, inner, inner=inner)


def function_inside() -> Any:
    def scaled(o: Any, x: Any) -> Any:
        def inside(y: Any) -> Any:
            return y * o.factor

        return inside(x)

    return _options(scaled, Options(factor=2.0))


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
    operator_of_an_argument, static_method_of_an_argument, result_of_a_method,
    method_of_the_base_class, context, attribute_by_name, either_of_two, alias, function_inside,
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


def test_parts_of_a_partial_function_are_read() -> None:
    options = Options(factor=2.0)
    scaled = gf.compile(functools.partial(helper, options))
    assert scaled(gf.ones(1)).item() == 2.0
    options.factor = 3.0
    assert scaled(gf.ones(1)).item() == 3.0


@pytest.mark.parametrize("name", ["with_options", "with_table", "with_number"])
def test_methods_of_modules_read_what_hangs_on_them(name: str) -> None:
    layer = Layer()
    assert getattr(layer, name)(gf.ones(1)).item() == 2.0
    layer.options.factor = layer.table["factor"] = layer.factor = 3.0
    assert getattr(layer, name)(gf.ones(1)).item() == 3.0


CONTAINERS: dict[str, tuple[Any, Any, Callable[[Any], Any]]] = {
    "defaultdict": (
        collections.defaultdict(float, a=2.0), lambda c: c["a"], lambda c: c.update(a=3.0),
    ),
    "OrderedDict": (
        collections.OrderedDict(a=2.0), lambda c: c["a"], lambda c: c.update(a=3.0),
    ),
    "deque": (
        collections.deque([1.0, 2.0]), lambda c: c[1], lambda c: c.__setitem__(1, 3.0),
    ),
    "set": ({2.0}, sum, lambda c: c.add(1.0)),
}  # fmt: skip


@pytest.mark.parametrize("name", CONTAINERS)
def test_containers_of_the_standard_library_are_read(name: str) -> None:
    container, look, change = CONTAINERS[name]
    scaled = gf.compile(lambda x: x * look(container))
    assert scaled(gf.ones(1)).item() == 2.0
    change(container)
    assert scaled(gf.ones(1)).item() == 3.0


def test_attributes_given_to_tensors_are_read() -> None:
    layer, weight = nn.Linear(1, 1), nn.Parameter(gf.ones(1))
    layer.weight.options, weight.factor = {"factor": 2.0}, 2.0
    scaled = gf.compile(lambda x: x * weight.factor * layer.weight.options["factor"])
    assert scaled(gf.ones(1)).item() == 4.0
    weight.factor = 3.0
    assert scaled(gf.ones(1)).item() == 6.0
    layer.weight.options["factor"] = 5.0
    assert scaled(gf.ones(1)).item() == 15.0


def test_numbers_of_small_arrays_are_read() -> None:
    array = np.array([1.0, 2.0])
    scaled = gf.compile(lambda x: x * float(array[1]) + gf.tensor(array).sum())
    assert scaled(gf.ones(1)).item() == 5.0
    array[1] = 3.0
    assert scaled(gf.ones(1)).item() == 7.0


def test_memory_of_arrays_that_a_program_reads_is_no_reason_to_trace_again() -> None:
    array = np.array([1.0, 2.0])
    total = gf.compile(lambda x: x + gf.from_numpy(array).sum())
    for array[1] in (2.0, 3.0, 4.0):
        assert total(gf.ones(1)).item() == 2.0 + array[1]
    assert len(total.programs) == 1


def test_arrays_among_the_arguments_are_inputs() -> None:
    array = np.array([1.0, 2.0])
    total = gf.compile(lambda a: (a * 2).sum())
    for array[1] in (2.0, 3.0):
        assert total(array).item() == 2 + 2 * array[1]
    assert len(total.programs) == 1


class Trainer:
    """Counts and keeps what its step does not read."""

    def __init__(self) -> None:
        self.model = nn.Linear(3, 2)
        self.optimizer = optim.SGD(self.model.parameters(), lr=0.1)
        self.steps, self.losses, self.sum, self.total = 0, list[float](), 0.0, gf.zeros(())
        self.output = 0.0

    def result(self, x: Any) -> Any:
        return Options(output=self.model(x))

    @gf.compile
    def step(self, x: Any) -> Any:
        loss = self.result(x).output.sum()  # neither is of this object
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
        trainer.output = loss
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


class Node:
    """One of many that know each other."""

    def __init__(self, factor: float) -> None:
        self.factor, self.left, self.right, self.up = factor, self, self, self
        self.others = list[Any]()

    def scaled(self, x: Any, depth: int) -> Any:
        return x * self.factor if depth == 0 else self.left.right.up.scaled(x, depth - 1)


def _ring(count: int) -> list[Node]:
    nodes = [Node(2.0) for _ in range(count)]
    for i, node in enumerate(nodes):
        node.left, node.right, node.up = nodes[i - 1], nodes[(i + 1) % count], nodes[i - 5]
        node.others = nodes
    return nodes


def _most_used(node: Any, x: Any) -> Any:
    return x * max(o.factor for o in (node, node.left.right, *node.others))


@pytest.mark.parametrize("function", [lambda n, x: n.scaled(x, 3), _most_used])
def test_objects_that_know_each_other_are_read_in_finite_time(function: Any) -> None:
    nodes, start = _ring(60), time.perf_counter()
    scaled = gf.compile(function)
    assert scaled(nodes[0], gf.ones(1)).item() == 2.0
    assert time.perf_counter() - start < 20  # seconds; names to the power of the depth took hours
    for node in nodes:
        node.factor = 3.0
    assert scaled(nodes[0], gf.ones(1)).item() == 3.0


class Endless:
    """Has every attribute, and of each again another object."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return Endless()


def test_attributes_made_when_asked_for_are_not_followed_for_ever() -> None:
    endless = Endless()
    same = gf.compile(lambda o, x: x if (o.a.b.c, helper, [o]) else o)
    assert same(endless, gf.ones(1)).item() == 1.0
    assert same(endless, gf.ones(1)).item() == 1.0
    assert len(same.programs) == 1


def test_more_objects_than_are_followed_are_told_of() -> None:
    many = [Options(factor=float(i)) for i in range(3000)]
    total = gf.compile(lambda x: x * sum(o.factor for o in many))
    with pytest.warns(UserWarning, match="changes of further ones are not noticed"):
        assert total(gf.ones(())).item() == sum(range(3000))
