"""Looking at tensors, graphs and programs: printing, pickling, tracing, explaining, comparing."""

import copy
import json
import pickle

import numpy as np
import pytest

import graphflow as gf
from graphflow import nn, optim
from graphflow.passes.base import Pass
from graphflow.testing import assert_close
from tests.front import linear, ramp, training_step

# ---- printing ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: gf.tensor([1.0, 2.0]), "tensor([1., 2.])"),
        (lambda: gf.tensor([[1, 2], [3, 40]]), "tensor([[ 1,  2],\n        [ 3, 40]])"),
        (lambda: gf.tensor(3.5), "tensor(3.5000)"),
        (lambda: gf.tensor(2), "tensor(2)"),
        (lambda: gf.tensor([True, False]), "tensor([ True, False])"),
        (lambda: gf.tensor([]), "tensor([])"),
        (lambda: gf.zeros(0, 3), "tensor([], size=(0, 3))"),
        (lambda: gf.tensor([1.5, -0.25]), "tensor([ 1.5000, -0.2500])"),
        (lambda: gf.tensor([1e-9, 1.0]), "tensor([1.0000e-09, 1.0000e+00])"),
        (lambda: gf.tensor([1.0, float("nan"), float("inf")]), "tensor([1., nan, inf])"),
        (lambda: gf.tensor([-float("inf"), 0.5]), "tensor([  -inf, 0.5000])"),
        (lambda: gf.tensor([1.0], dtype=gf.float64), "tensor([1.], dtype=graphflow.float64)"),
        (lambda: gf.tensor([1], dtype=gf.int32), "tensor([1], dtype=graphflow.int32)"),
        (lambda: gf.tensor([1.0], requires_grad=True), "tensor([1.], requires_grad=True)"),
        (lambda: gf.tensor([1e10, 1.0]), "tensor([1.0000e+10, 1.0000e+00])"),
        (lambda: gf.tensor([100000.0, 0.1]), "tensor([1.0000e+05, 1.0000e-01])"),
    ],
)
def test_tensors_print_as_in_pytorch(make, text):
    assert repr(make()) == text


def test_long_tensors_are_summarised():
    assert repr(gf.arange(2000)) == "tensor([   0,    1,    2,  ..., 1997, 1998, 1999])"


def test_history_and_parameters_print():
    w = gf.tensor([1.0], requires_grad=True)
    assert repr(w * 2) == "tensor([2.], grad_fn=<MulBackward0>)"
    assert repr(nn.Parameter(gf.ones(1))) == (
        "Parameter containing:\ntensor([1.], requires_grad=True)"
    )
    assert repr(gf.ones(2, 3).shape) == "graphflow.Size([2, 3])"
    assert f"{gf.tensor(1.5):.2f} {gf.tensor(3)}" == "1.50 3"


def test_models_print_as_in_pytorch():
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Sequential(nn.Dropout(0.25), nn.Flatten()))
    assert repr(model) == (
        "Sequential(\n"
        "  (0): Linear(in_features=2, out_features=3, bias=True)\n"
        "  (1): ReLU()\n"
        "  (2): Sequential(\n"
        "    (0): Dropout(p=0.25, inplace=False)\n"
        "    (1): Flatten(start_dim=1, end_dim=-1)\n"
        "  )\n"
        ")"
    )
    assert "lr: 0.1" in repr(optim.SGD(model.parameters(), lr=0.1))


# ---- copies ------------------------------------------------------------------------


def test_pickle_and_deepcopy_of_tensors_and_modules():
    model = nn.Sequential(linear(), nn.Dropout(0.5)).eval()
    model.register_buffer("count", gf.tensor(3))
    model(ramp(2, 4)).sum().backward()
    for copied in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert type(copied[0].weight) is nn.Parameter and copied[0].weight.requires_grad
        assert not copied.training and copied.count.item() == 3
        np.testing.assert_array_equal(copied(ramp(2, 4)).detach(), model(ramp(2, 4)).detach())
        with gf.no_grad():
            copied[0].weight.add_(1)
        assert not gf.equal(copied[0].weight, model[0].weight)
    assert copy.deepcopy(model)[0].weight.grad is not None
    x = pickle.loads(pickle.dumps(ramp(4, 4).t()[1:]))
    np.testing.assert_array_equal(x.numpy(), ramp(4, 4).t()[1:].numpy())
    assert pickle.loads(pickle.dumps(gf.float32)) is gf.float32


def test_copies_keep_sharing():
    model = nn.Sequential(linear(4, 4), linear(4, 4))
    model[1].weight = model[0].weight
    for copied in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert copied[1].weight is copied[0].weight


def test_compiled_functions_are_copied_without_their_programs():
    f = gf.compile(linear(), keep_grads=True)
    expected = f(ramp(2, 4)).detach().numpy()
    for copied in (copy.deepcopy(f), pickle.loads(pickle.dumps(f))):
        assert copied.programs == [] and copied.original is not f.original
        np.testing.assert_array_equal(copied(ramp(2, 4)).detach().numpy(), expected)


def test_a_copied_model_and_optimizer_train_in_a_compiled_step():
    model = linear()
    opt = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    step = training_step(model, opt, gf.compile)
    step(ramp(5, 4))
    twin, twin_opt = copy.deepcopy((model, opt))
    other = training_step(twin, twin_opt, gf.compile)
    for _ in range(2):
        assert step(ramp(5, 4)).item() == other(ramp(5, 4)).item()
    np.testing.assert_array_equal(model.weight.detach(), twin.weight.detach())


# ---- graphs ------------------------------------------------------------------------


def traced_step():
    model = linear()
    opt = optim.SGD(model.parameters(), lr=0.1)
    step = training_step(model, opt, lambda f: f)
    return model, step, gf.trace(step, gf.TensorSpec((5, 4), name="x"))


def test_a_traced_graph_compiles_over_the_live_tensors():
    model, step, graph = traced_step()
    graph.verify()
    before = model.weight.detach().clone()
    program = gf.compile(graph)
    loss = program(ramp(5, 4))
    assert not gf.equal(before, model.weight)
    with gf.no_grad():
        model.weight.copy_(before)
        model.bias.copy_(ramp(3, scale=0.1))
    assert step(ramp(5, 4)).item() == pytest.approx(loss.item(), rel=1e-6)


def test_a_traced_graph_returns_what_the_function_returns():
    """Views, arguments and outer tensors are outputs of their own."""
    outer = gf.tensor([5.0, 6.0])

    def run(x):
        y = x * 2
        return y[0], y.t(), x, outer, y

    x = gf.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    program = gf.compile(gf.trace(run, gf.TensorSpec((3, 2))))
    for one, other in zip(program(x), run(x), strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())


def test_gradients_belong_to_the_module_whose_work_they_undo():
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))

    def run(x):
        model(x).sum().backward()
        return model[0].weight.grad

    graph = gf.trace(run, gf.TensorSpec((2, 3)))
    found = {}
    for node, place in graph.locations.items():
        found.setdefault(node.op.name, set()).add(place.module)
    assert found["mul"] == {"model.1"}  # of tanh
    assert found["reduce_sum"] == {"", "model.0", "model.2"}  # the user's own, and of biases
    assert found["matmul"] == {"model.0", "model.2"}


def test_gradients_are_made_where_they_were_asked_for_and_hooks_where_they_stand():
    def run(x):
        y = (x * x).exp().requires_grad_()
        y.register_hook(lambda ct: ct.atan())
        ((y.tanh() ** 3).cos().sum() * 2).backward()
        return y.grad.log()

    first = run.__code__.co_firstlineno
    places = gf.trace(run, gf.TensorSpec((3,))).locations
    lines = {node.op.name: place.line - first for node, place in places.items()}
    rules = [lines[name] for name in ("sin", "neg", "expand")]
    assert (lines["atan2"], rules, lines["log"]) == (2, [3, 3, 3], 4), lines


def test_the_sum_of_gradients_belongs_to_the_module_whose_result_they_are_of():
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh())

    def run(x):
        hidden = model(x)
        (hidden * hidden + hidden.exp()).sum().backward()
        return model[0].weight.grad

    graph = gf.trace(run, gf.TensorSpec((2, 3)))
    places = [graph.locations[n].module for n in graph.nodes if n.op.name == "add"]
    assert places == ["model.0", "model.1", "model.1"]  # the bias; three gradients of hidden


def test_a_parsed_graph_has_state_by_name_and_no_values():
    model, _, graph = traced_step()
    text = str(graph)
    parsed = gf.Graph.parse(text)
    assert str(parsed) == text
    live, loaded = gf.compile(graph), gf.compile(parsed)
    values = {name: t.clone() for name, t in live.state_dict().items()}
    assert "model.weight" in values
    extra = (0.1,) if len(parsed.inputs) == 2 else ()
    with pytest.raises(gf.GraphFlowError, match=r"no values yet.*model.weight.*load_state_dict"):
        loaded(ramp(5, 4), *extra)
    loaded.load_state_dict(values)
    for _ in range(3):
        assert loaded(ramp(5, 4), *extra).item() == live(ramp(5, 4)).item()
    np.testing.assert_array_equal(loaded.state_dict()["model.weight"], model.weight.detach())


def test_state_that_does_not_fit_is_refused_whole():
    _, _, graph = traced_step()
    program = gf.compile(graph)
    values = {name: t.clone() + 1 for name, t in program.state_dict().items()}
    held = program.state_dict()["model.weight"].clone()
    for wrong in ({**values, "model.bias": gf.ones(9)}, {**values, "more": gf.ones(1)}):
        with pytest.raises(gf.GraphFlowError, match=r"model.bias|more"):
            program.load_state_dict(wrong)
        assert gf.equal(program.state_dict()["model.weight"], held)


def test_traces_run_in_the_interpreter_too():
    graph = gf.trace(lambda x, y: (gf.softmax(x @ y, 1), x.sum()), ramp(3, 4), ramp(4, 2))
    x, y = ramp(3, 4), ramp(4, 2)
    expected = gf.compile(graph)(x, y)
    for a, b in zip(graph.run(x.numpy(), y.numpy()), expected):
        np.testing.assert_allclose(a, b.numpy(), rtol=1e-6)


def test_specs_name_inputs_and_may_be_symbolic():
    graph = gf.trace(lambda x, s: x * s, gf.TensorSpec(("batch", 3), name="rows"), 2.0)
    assert "batch" in str(graph) and graph.inputs[0].attrs["name"] == "rows"
    (out,) = graph.run(ramp(7, 3).numpy(), np.float64(0.5))
    np.testing.assert_allclose(out, ramp(7, 3).numpy() * 0.5, rtol=1e-6)


def test_programs_check_their_inputs():
    program = gf.compile(gf.trace(lambda x, s: x * s, gf.TensorSpec((2,), name="x"), 1.5))
    np.testing.assert_array_equal(program(gf.ones(2), 3.0).numpy(), [3, 3])
    with pytest.raises(gf.GraphFlowError, match=r"2 inputs, got 1"):
        program(gf.ones(2))
    with pytest.raises(gf.GraphFlowError, match=r"'x'.*f32\[2\].*f32\[3\]"):
        program(gf.ones(3), 1.0)


# ---- programs ----------------------------------------------------------------------


def test_explanations_name_stages_kernels_and_lines():
    model = linear()
    step = training_step(model, optim.SGD(model.parameters(), lr=0.1), gf.compile)
    with pytest.raises(gf.GraphFlowError, match="not been called"):
        step.explain()
    step(ramp(5, 4))
    explanation = step.explain()
    text = str(explanation)
    for wanted in ("stage", "fuse", "schedule", "kernel", "memory:", "front.py", "guards:"):
        assert wanted in text
    assert explanation.kernels and explanation.memory.arena >= 0
    names = [stage.name for stage in explanation.stages]
    assert names[0] == "traced" and names[-1] == "schedule"
    for kernel in step.programs[0].kernels:
        assert kernel.source and kernel.bytes > 0 and kernel.threads >= 1
        assert kernel.source_path is None or kernel.source_path.exists()
    assert any("front.py" in line for k in explanation.kernels for line in k.user_lines)
    step(ramp(6, 4))
    assert "f32[5, 4]".replace(", ", ",") in str(step.explain())


def test_stages_hold_the_graph_after_every_pass():
    f = gf.compile(lambda x: gf.exp(x * 1.0) + 0.0)
    f(ramp(3))
    stages = f.programs[0].stages()
    assert len(stages[0].graph.nodes) > len(stages[-2].graph.nodes)
    assert all(s.seconds >= 0 and s.note for s in stages)


def test_user_passes_run_first():
    seen = []

    class Look(Pass):
        name = "look"

        def run(self, graph):
            seen.append(len(graph.nodes))
            return graph

    f = gf.compile(lambda x: x * 2 + 1, passes=[Look()])
    np.testing.assert_array_equal(f(ramp(3)).numpy(), (ramp(3) * 2 + 1).numpy())
    assert len(seen) == 1


def test_benchmark_compares_and_puts_state_back():
    model = linear()
    opt = optim.Adam(model.parameters(), lr=0.1)
    step = training_step(model, opt, lambda f: f)
    step(ramp(5, 4))
    before = [t.detach().numpy().copy() for t in _state(model, opt)]
    gf.manual_seed(4)
    grad = model.weight.grad
    result = gf.benchmark(step, ramp(5, 4), repeat=3)
    for a, b in zip(before, _state(model, opt), strict=True):
        np.testing.assert_array_equal(a, b.detach().numpy())
    assert model.weight.grad is grad
    assert gf.get_rng_state()[1].item() == 0
    assert result.static.n == result.eager.n == 3
    assert result.max_abs_difference < 1e-5
    assert "speed-up" in str(result) and "static" in str(result)
    assert set(json.loads(result.to_json())) >= {"static", "eager", "speedup", "first_call_s"}


def _state(model, opt):
    slots = [v for p in model.parameters() for v in opt.state[p].values()]
    return [*model.parameters(), *slots]


def test_compiled_modules_are_still_modules_to_look_at():
    model = nn.Sequential(linear(), nn.Dropout(0.1))
    f = gf.compile(model)
    f.extra = nn.ReLU()
    assert model.extra is f.extra
    assert list(f.state_dict()) == list(model.state_dict())
    assert len(list(f.parameters())) == 2
    f.eval()
    assert not model.training
    np.testing.assert_allclose(f(ramp(2, 4)).detach(), model(ramp(2, 4)).detach(), rtol=1e-6)
    assert "Linear" in repr(f)


def test_a_compiled_function_looks_like_its_original():
    @gf.compile
    def measure(x):
        """Measures."""
        return x.sum()

    assert measure.__name__ == "measure" and measure.__doc__ == "Measures."
    assert "measure" in repr(measure) and measure.original(gf.ones(2)).item() == 2


def test_long_chains_need_no_recursion():
    def chain(x):
        for _ in range(5000):
            x = x * 1.0001 + 0.5
        return x

    graph = gf.trace(chain, ramp(3))
    assert len(graph.nodes) > 10_000
    assert str(gf.Graph.parse(str(graph))) == str(graph)
    x = ramp(3).requires_grad_()
    chain(x).sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), 1.0001**5000, rtol=1e-3)
    live = gf.trace(lambda v: chain(v * x), ramp(3))
    live.verify()


def test_models_are_copied_inside_of_a_program():
    gf.manual_seed(5)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
    x, y = gf.randn(8, 3), gf.randn(8, 1)

    def adapted(x, y):  # a step of a copy, as in meta-learning
        fast = copy.deepcopy(model)
        grads = gf.autograd.grad((fast(x) - y).square().mean(), list(fast.parameters()))
        with gf.no_grad():
            for parameter, gradient in zip(fast.parameters(), grads):
                parameter.sub_(0.5 * gradient)
        return (fast(x) - y).square().mean(), [p.detach() for p in fast.parameters()]

    def accumulated(x, y):
        fast = copy.deepcopy(model)
        (fast(x) - y).square().mean().backward()
        return fast[0].weight.grad

    def same(function):
        compiled, given = gf.compile(function), [p.detach().clone() for p in model.parameters()]
        for _ in range(2):
            assert_close(compiled(x, y), function(x, y))
            for parameter, before in zip(model.parameters(), given):
                assert np.array_equal(parameter.detach().numpy(), before.numpy())

    same(adapted)
    same(accumulated)
    model[0].weight.grad = gf.ones(4, 3)
    same(accumulated)
    assert np.array_equal(model[0].weight.grad.numpy(), np.ones((4, 3)))
    twice = gf.compile(lambda t: copy.deepcopy([t, t]))(x)
    assert all(np.array_equal(each.numpy(), x.numpy()) for each in twice)
