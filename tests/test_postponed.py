"""Backward passes left open in a trace: written out, they are what the rules make at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphflow as gf
import graphflow.nn.functional as F
from graphflow import dispatch, nn
from graphflow.autograd import postponed
from graphflow.autograd.postponed import Draft
from graphflow.capture import Capture, capture
from graphflow.errors import CannotPostpone, GraphFlowError
from graphflow.ir.op import Kind, OpDef, OpTests

LAYERS = [(nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)) for _ in range(3)]
LINEAR = nn.Linear(6, 6)


def _network(x: Any) -> None:
    y = x
    for conv, norm in LAYERS:
        y = y + F.relu(norm(conv(y)))
    F.max_pool2d(y, 2).square().mean().backward()


def _shared_parameters(x: Any) -> None:
    y = LINEAR(LINEAR(x).tanh()) @ LINEAR.weight.detach()
    (y.sum() + (y * y).sum()).backward()


def _two_losses(x: Any) -> None:
    y = LINEAR(x)
    y.square().sum().backward(retain_graph=True)
    y.exp().mean().backward()


def _a_loss_of_a_gradient(x: Any) -> None:
    LINEAR(x).square().sum().backward()
    ((x.grad * x).sum() + LINEAR.weight.grad.sum() * x.mean()).backward()


def _given_cotangents(x: Any) -> None:
    y = LINEAR(x)
    gf.autograd.backward([y, y * 2], [x * 3, x.detach()])


def _hooks_of_leaves(x: Any) -> None:
    handle = LINEAR.weight.register_hook(lambda gradient: gradient * 2)
    LINEAR(x).square().sum().backward()
    handle.remove()


def _clipped(x: Any) -> None:
    LINEAR(x).square().sum().backward()
    nn.utils.clip_grad_norm_(LINEAR.parameters(), 0.5)


def _changed_between(x: Any) -> None:
    y = x * 2.0
    z = y * x
    y = y.clone()
    y.mul_(3.0)
    ((y * x).sum() + z.sum()).backward()


def _partly_without_history(x: Any) -> None:
    y = LINEAR(x)
    with gf.no_grad():
        z = LINEAR(x)
    (y * z + y * y.detach()).sum().backward()


def _random(x: Any) -> None:
    F.dropout(LINEAR(x), 0.5).square().sum().backward()


FUNCTIONS = [
    _network, _shared_parameters, _two_losses, _a_loss_of_a_gradient, _given_cotangents,
    _hooks_of_leaves, _clipped, _changed_between, _partly_without_history, _random,
]  # fmt: skip


def _traced(function: Callable[[Any], None], postpones: bool) -> Capture:
    def step(x: Any) -> Any:
        LINEAR.zero_grad()
        for layer in LAYERS:
            for module in layer:
                module.zero_grad()
        function(x)
        used = [p.grad for p in (*LINEAR.parameters(), *LAYERS[0][0].parameters())]
        return x.grad, [g for g in used if g is not None]

    x = gf.ones(2, 4, 6, 6, requires_grad=True)
    return capture(step, (x,), {}, postpones=postpones)


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda f: f.__name__.strip("_"))
def test_the_whole_graph_is_the_one_that_is_made_at_once(function: Callable[[Any], None]) -> None:
    left_open, at_once = _traced(function, True), _traced(function, False)
    assert isinstance(left_open.traced, Draft)
    assert not isinstance(at_once.traced, Draft)
    assert len(left_open.traced.face.nodes) < len(at_once.graph.nodes)
    assert left_open.graph.hash() == at_once.graph.hash(), at_once.graph.diff(left_open.graph)
    places, expected = (
        {(n.op.name, str(graph.location(n))) for n in graph.nodes if graph.location(n)}
        for graph in (left_open.graph, at_once.graph)
    )
    assert places == expected


def test_drafts_are_told_apart_by_their_histories() -> None:
    """The forward graphs are equal: what has no history is seen in what is written down only."""

    def first(x: Any) -> None:
        y = LINEAR(x)
        (y * y.detach()).sum().backward()

    def second(x: Any) -> None:
        y = LINEAR(x)
        (y.detach() * y).sum().backward()

    def both(x: Any) -> None:
        y = LINEAR(x)
        (y * y).sum().backward()

    traced = [_traced(function, True) for function in (first, second, both, first)]
    hashes = [t.traced.hash() for t in traced]
    assert len(set(hashes)) == 3 and hashes[0] == hashes[3]
    assert len({t.traced.face.hash() for t in traced}) == 1  # type: ignore[union-attr]


def _of_a_result_with_hooks(x: Any) -> None:
    y = LINEAR(x)
    y.register_hook(lambda gradient: gradient * 2)
    y.sum().backward()


def _of_a_result_that_keeps_its_gradient(x: Any) -> None:
    y = LINEAR(x)
    y.retain_grad()
    (y * y.exp()).sum().backward()


def _of_a_function_of_the_users(x: Any) -> None:
    class Double(gf.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            return x * 2

        @staticmethod
        def backward(ctx: Any, gradient: Any) -> Any:
            return gradient * 2

    Double.apply(LINEAR(x)).sum().backward()


def _with_history(x: Any) -> None:
    LINEAR(x).square().sum().backward(create_graph=True)


def _for_some_inputs(x: Any) -> None:
    LINEAR(x).square().sum().backward(inputs=[x])


SPECIAL = [
    _of_a_result_with_hooks, _of_a_result_that_keeps_its_gradient, _of_a_function_of_the_users,
    _with_history, _for_some_inputs,
]  # fmt: skip


@pytest.mark.parametrize("function", SPECIAL, ids=lambda f: f.__name__.strip("_"))
def test_special_passes_are_written_out_at_once(function: Callable[[Any], None]) -> None:
    left_open, at_once = _traced(function, True), _traced(function, False)
    assert not isinstance(left_open.traced, Draft)
    assert left_open.graph.hash() == at_once.graph.hash()


def _step(seed: int) -> tuple[Callable[[Any], Any], nn.Linear]:
    gf.manual_seed(seed)
    layer = nn.Linear(5, 3)
    optimizer = gf.optim.SGD(layer.parameters(), lr=0.1, momentum=0.9)

    def step(x: Any) -> Any:
        optimizer.zero_grad()
        loss = layer(x).tanh().square().sum()
        loss.backward()
        optimizer.step()
        return loss

    return step, layer


def test_who_finds_the_plan_writes_nothing_out(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[object] = []
    real = postponed._cotangents
    monkeypatch.setattr(
        postponed, "_cotangents", lambda *given: written.append(given) or real(*given)
    )
    x = gf.tensor(np.random.default_rng(3).normal(size=(4, 5)).astype(np.float32))
    losses = []
    for _ in range(2):
        step, layer = _step(7)
        compiled = gf.compile(step)
        losses.append([float(compiled(x)) for _ in range(3)])
        plain, other = _step(7)
        expected = [float(plain(x)) for _ in range(3)]
        np.testing.assert_allclose(losses[-1], expected, rtol=1e-5)
        ours, theirs = (linear.weight.detach().numpy() for linear in (layer, other))
        np.testing.assert_allclose(ours, theirs, rtol=1e-5)
        written.append("then")
    assert written[written.index("then") :] == ["then", "then"]  # the first may have found one too
    graph = compiled.programs[0].graph
    assert written[-1] != "then"  # the graph is there when it is asked for, with its gradients
    assert graph.inputs[0].attrs["name"] == "x"


def test_what_cannot_be_left_open_after_all_is_traced_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tried = []

    def refuse(*given: Any) -> Any:
        tried.append(given)
        raise CannotPostpone("as a rule that is to be asked each time")

    monkeypatch.setattr(postponed, "_cotangents", refuse)
    layer = nn.Linear(5, 3)

    def step(x: Any) -> Any:
        loss = (layer(x) * 1.75).sin().sum()  # of no other test: there is no plan
        loss.backward()
        return loss

    x = gf.ones(11, 5)
    compiled = gf.compile(step)
    loss = compiled(x)
    found = layer.weight.grad.numpy().copy()
    assert len(tried) == 1
    layer.zero_grad()
    np.testing.assert_allclose(float(loss), float(step(x)), rtol=1e-5)
    np.testing.assert_allclose(found, layer.weight.grad.numpy(), rtol=1e-5)
    compiled(gf.ones(7, 5))
    assert len(tried) == 1  # nor is it tried again


def test_rules_of_the_users_are_written_out_at_once() -> None:
    """A plan that was found by what is written down would not know that they have changed."""

    def record(factor: float) -> OpDef:
        return OpDef(
            "cubed", Kind.ELEMENTWISE, "x**3", infer=lambda types, attrs: types[0],
            reference=lambda x: x**3, vjp=(lambda b, app, ct: ct * factor,), tests=OpTests(),
        )  # fmt: skip

    def step(op: OpDef) -> Any:
        x = gf.ones(4, requires_grad=True)

        def backward(x: Any) -> Any:
            dispatch.apply(op, x * 2.0).sum().backward()
            return x.grad

        return capture(backward, (x,), {}, postpones=True)

    one, other = step(record(3.0)), step(record(5.0))
    assert not isinstance(one.traced, Draft)
    assert one.traced.hash() != other.traced.hash()


def test_results_with_history_beside_a_backward_pass_inside() -> None:
    layer = nn.Linear(5, 3)

    def step(x: Any) -> Any:
        layer.zero_grad()
        layer(x).square().sum().backward()
        return layer.weight.grad.sum() * (x * x)

    x = gf.tensor(np.random.default_rng(5).normal(size=(4, 5)), dtype=gf.float32)
    x.requires_grad_()
    given = gf.ones(4, 5)
    results = []
    for function in (step, gf.compile(step)):
        x.grad = None
        out = function(x)
        x.grad = None
        out.backward(given)
        results.append((out.detach().numpy(), x.grad.numpy()))
    for eager, compiled in zip(*results):
        np.testing.assert_allclose(compiled, eager, rtol=1e-5)


def test_freed_and_overwritten_values_are_refused_as_in_eager_code() -> None:
    def twice(x: Any) -> None:
        loss = LINEAR(x).square().sum()
        loss.backward()
        loss.backward()

    def overwritten(x: Any) -> None:
        y = LINEAR(x)
        loss = (y * y).sum()
        with gf.no_grad():
            y.mul_(2)
        loss.backward()

    for function, text in ((twice, "a second time"), (overwritten, "modified by an in-place")):
        with pytest.raises(GraphFlowError, match=text):
            function(gf.ones(2, 6))
        with pytest.raises(GraphFlowError, match=text):
            gf.compile(function)(gf.ones(2, 6))


def test_arguments_may_be_called_what_placeholders_are() -> None:
    w = gf.tensor([1.0, 2.0, 3.0], requires_grad=True)

    def step(**given: Any) -> Any:
        w.grad = None
        (w * w * given["gradient"]).sum().backward()
        return w.grad + given["gradient"] + given["gradient 0"] + given["gradient_1"]

    names = ("gradient", "gradient 0", "gradient_1")
    out = gf.compile(step)(**{name: gf.full((3,), 2.0) for name in names})
    np.testing.assert_array_equal(out.numpy(), [10, 14, 18])
