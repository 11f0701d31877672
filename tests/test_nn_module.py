"""The module base: members, paths, hooks, state, conversion; containers."""

import copy
import pickle
from collections import OrderedDict

import numpy as np
import pytest

import graphflow as gf
from graphflow import nn
from tests.front import agree, linear, ramp


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = linear(4, 3)
        self.twice = self.first
        self.scale = nn.Parameter(gf.ones(3))
        self.seen = nn.Buffer(gf.zeros(3))
        self.hidden = nn.Buffer(gf.ones(2), persistent=False)
        self.register_buffer("nothing", None)

    def forward(self, x, *, factor=1.0):
        return self.first(x) * self.scale * factor


def test_members_have_names_and_paths():
    net = nn.Sequential(Net(), nn.ReLU())
    names = ["0.scale", "0.first.weight", "0.first.bias"]
    assert [n for n, _ in net.named_parameters()] == names
    every = [n for n, _ in net.named_parameters(remove_duplicate=False)]
    assert every == [*names, "0.twice.weight", "0.twice.bias"]
    assert [n for n, _ in net.named_buffers("p")] == ["p.0.seen", "p.0.hidden"]
    assert [n for n, _ in net.named_modules()] == ["", "0", "0.first", "1"]
    assert [n for n, _ in net[0].named_children()] == ["first"]
    assert net.get_submodule("0.first") is net[0].first
    assert net.get_parameter("0.first.bias") is net[0].first.bias
    assert net.get_buffer("0.seen") is net[0].seen
    net.set_submodule("0.first", nn.Identity())
    assert isinstance(net[0].first, nn.Identity) and "scale" in dir(net[0])
    for wrong in ("0.absent", "0.scale"):
        with pytest.raises(AttributeError):
            net.get_submodule(wrong)
    with pytest.raises(AttributeError):
        net.get_buffer("0.scale")


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda m: m.register_parameter("w", gf.ones(2)), TypeError),
        (lambda m: m.register_parameter("a.b", None), KeyError),
        (lambda m: m.register_buffer("", gf.ones(2)), KeyError),
        (lambda m: m.register_buffer("forward", gf.ones(2)), KeyError),
        (lambda m: m.register_buffer("b", 3), TypeError),
        (lambda m: m.add_module("m", 3), TypeError),
        (lambda m: setattr(m, "scale", gf.ones(3)), TypeError),
        (lambda m: setattr(m, "seen", 3), TypeError),
        (lambda m: setattr(m, "first", 3), TypeError),
        (lambda m: m.register_parameter("w", nn.Parameter(gf.ones(2)) * 2), TypeError),
        (lambda m: m.to(gf.int64), TypeError),
        (lambda m: m.train("yes"), ValueError),
    ],
)
def test_wrong_members_are_refused(change, error):
    with pytest.raises(error):
        change(Net())


def test_assigning_the_right_kind_replaces():
    net = Net()
    net.seen = gf.ones(3)
    assert net.get_buffer("seen").sum().item() == 3
    net.scale = None
    assert [n for n, _ in net.named_parameters()] == ["first.weight", "first.bias"]
    net.seen = nn.Parameter(gf.ones(1))
    assert "seen" in dict(net.named_parameters()) and "seen" not in dict(net.named_buffers())
    del net.seen
    assert not hasattr(net, "seen")


def test_state_goes_out_and_comes_back():
    net, other = Net(), Net()
    state = net.state_dict()
    assert list(state) == [
        "scale", "seen", "first.weight", "first.bias", "twice.weight", "twice.bias"
    ]  # fmt: skip
    assert state._metadata["first"] == {"version": 1}
    assert "m.scale" in net.state_dict(prefix="m.")
    assert net.state_dict(keep_vars=True)["scale"] is net.scale
    with gf.no_grad():
        net.first.weight.mul_(2.0)
    result = other.load_state_dict(state)
    assert repr(result) == "<All keys matched successfully>"
    np.testing.assert_array_equal(other.first.weight.detach(), net.first.weight.detach())
    other.load_state_dict({k: v.double() for k, v in state.items()}, assign=True)
    assert other.first.weight.dtype is gf.float64 and isinstance(other.scale, nn.Parameter)
    assert other.seen.dtype is gf.float64


def test_a_state_that_does_not_fit_changes_nothing():
    net = Net()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    state = {k: v + 1 for k, v in before.items()}
    del state["seen"]
    state["surplus"] = gf.ones(1)
    with pytest.raises(gf.GraphFlowError, match=r"missing: seen.*unexpected: surplus"):
        net.load_state_dict(state)
    state["scale"] = gf.ones(9)
    with pytest.raises(gf.GraphFlowError, match=r"'scale' is \[9\]"):
        net.load_state_dict(state, strict=False)
    for name, value in net.state_dict().items():
        np.testing.assert_array_equal(value, before[name])
    state["scale"] = before["scale"] + 1
    result = net.load_state_dict(state, strict=False)
    assert (result.missing_keys, result.unexpected_keys) == (["seen"], ["surplus"])
    assert net.scale[0].item() == 2


class Renamed(nn.Module):
    """Loads an older spelling, and keeps a number beside its tensors."""

    def __init__(self):
        super().__init__()
        self.weight, self.steps = nn.Parameter(gf.zeros(2)), 0

    def _load_from_state_dict(self, state_dict, prefix, *args):
        if prefix + "w" in state_dict:
            state_dict[prefix + "weight"] = state_dict.pop(prefix + "w")
        super()._load_from_state_dict(state_dict, prefix, *args)

    def get_extra_state(self):
        return {"steps": self.steps}

    def set_extra_state(self, state):
        self.steps = state["steps"]


def test_loading_can_be_overridden_and_hooked():
    model = nn.ModuleDict({"a": Renamed()})
    seen = []
    model["a"].register_load_state_dict_pre_hook(
        lambda m, state, prefix, *rest: seen.append(prefix)
    )
    handle = model.register_load_state_dict_post_hook(lambda m, keys: seen.append(keys))
    model.load_state_dict({"a.w": gf.ones(2), "a._extra_state": {"steps": 7}})
    assert model["a"].weight.sum().item() == 2 and model["a"].steps == 7
    assert seen[0] == "a." and seen[1].missing_keys == []
    handle.remove()
    model["a"].register_state_dict_post_hook(lambda m, state, prefix, local: state.pop("a.weight"))
    assert list(model.state_dict()) == ["a._extra_state"]


def test_older_hooks_of_states():
    model, seen = nn.Sequential(linear()), []
    model._register_state_dict_hook(
        lambda m, state, prefix, local: {name.upper(): value for name, value in state.items()}
    )
    assert list(model.state_dict()) == ["0.WEIGHT", "0.BIAS"]
    outer = nn.ModuleDict({"a": model})
    assert list(outer.state_dict()) == ["a.0.weight", "a.0.bias"]  # the outer module's counts
    model._register_load_state_dict_pre_hook(lambda state, prefix, *rest: seen.append(prefix))
    model._register_load_state_dict_pre_hook(
        lambda module, state, prefix, *rest: seen.append(module), with_module=True
    )
    outer.load_state_dict(outer.state_dict())
    assert seen == ["a.", model]


# ---- hooks -----------------------------------------------------------------------------


def test_forward_hooks_in_order_with_keywords():
    net, calls = Net(), []
    net.register_forward_hook(lambda m, a, out: calls.append("after"))
    net.register_forward_hook(
        lambda m, a, k, out: (calls.append(k), out + 1)[1], with_kwargs=True, prepend=True
    )
    net.register_forward_pre_hook(lambda m, a: (a[0] * 2,))
    double = net.register_forward_pre_hook(
        lambda m, a, k: (a, {"factor": k["factor"] * 2}), with_kwargs=True
    )
    x = ramp(2, 4)
    out = net(x, factor=3.0)
    assert calls == [{"factor": 6.0}, "after"]
    np.testing.assert_allclose(out.detach(), (net.first(x * 2) * 6 + 1).detach(), rtol=1e-6)
    double.remove()
    np.testing.assert_allclose(
        net(x, factor=3.0).detach(), (net.first(x * 2) * 3 + 1).detach(), rtol=1e-6
    )


def test_a_hook_that_is_always_called():
    net, calls = Net(), []
    net.register_forward_hook(lambda m, a, out: calls.append(out), always_call=True)
    with pytest.raises(gf.ShapeError):
        net(ramp(2, 5))
    assert calls == [None]


class Pair(nn.Module):
    def forward(self, a, b, unused):
        return a * b, a + 1


@pytest.mark.parametrize("jit", [lambda f: f, gf.compile])
def test_backward_hooks_see_and_replace_gradients(jit):
    module, seen = Pair(), []
    module.register_full_backward_pre_hook(lambda m, out: (out[0] * 2, out[1]))

    def hook(m, inputs, outputs):
        seen.append(([g is not None for g in inputs], [g is not None for g in outputs]))
        return inputs[0], inputs[1] * 10, inputs[2]

    module.register_full_backward_hook(hook)
    a, b, c = (ramp(3, offset=i).requires_grad_() for i in range(3))

    def step(a, b, c):
        p, q = module(a, b, c)
        return gf.autograd.grad((p * 3).sum() + q.sum(), [a, b])

    da, db = jit(step)(a, b, c)
    assert seen == [([True, True, False], [True, True])]
    np.testing.assert_allclose(da.numpy(), 6 * b.detach().numpy() + 1, rtol=1e-6)
    np.testing.assert_allclose(db.numpy(), 60 * a.detach().numpy(), rtol=1e-6)


def test_a_backward_hook_fires_without_differentiable_arguments():
    module, seen = linear(), []
    handle = module.register_full_backward_hook(lambda m, i, o: seen.append((i, o[0].shape)))
    module(ramp(2, 4)).sum().backward()
    assert seen == [((None,), (2, 3))]
    handle.remove()
    module(ramp(2, 4)).sum().backward()
    assert len(seen) == 1


@pytest.mark.parametrize("jit", [lambda f: f, gf.compile])
def test_hooks_of_all_modules_come_first_and_are_noticed(jit):
    everywhere, calls = gf.nn.modules.module, []
    net = nn.Sequential(linear(), nn.ReLU())
    net[0].register_forward_pre_hook(lambda m, a: calls.append("own"))

    def note(kind):
        return lambda m, *rest: calls.append((kind, type(m).__name__))

    step = jit(lambda x: gf.autograd.grad(net(x).sum(), [x])[0])
    x = ramp(2, 4).requires_grad_()
    plain = step(x)
    calls.clear()
    handles = [
        everywhere.register_module_forward_pre_hook(note("before")),
        everywhere.register_module_forward_hook(note("after")),
        everywhere.register_module_full_backward_pre_hook(note("arrives")),
        everywhere.register_module_full_backward_hook(note("leaves")),
    ]
    doubled = everywhere.register_module_forward_hook(
        lambda m, a, k, out: out * 2 if isinstance(m, nn.Linear) else None, with_kwargs=True
    )
    np.testing.assert_allclose(step(x).numpy(), 2 * plain.numpy(), rtol=1e-6)
    names = ["before Sequential", "before Linear", "own", "after Linear", "before ReLU",
             "after ReLU", "after Sequential", "arrives Sequential", "arrives ReLU",
             "leaves ReLU", "arrives Linear", "leaves Linear", "leaves Sequential"]  # fmt: skip
    assert [c if c == "own" else " ".join(c) for c in calls] == names
    for handle in [*handles, doubled]:
        handle.remove()
    calls.clear()
    assert gf.equal(step(x), plain) and set(calls) <= {"own"}


# ---- conversion, copies ------------------------------------------------------------------


def test_conversion_takes_gradients_and_buffers_along():
    net = Net()
    net(ramp(2, 4)).sum().backward()
    assert net.double() is net
    assert net.scale.dtype is net.scale.grad.dtype is net.seen.dtype is gf.float64
    assert net.half().scale.dtype is gf.float16 and net.bfloat16().scale.dtype is gf.bfloat16
    assert net.to(gf.ones(1)).scale.dtype is gf.float32
    assert net.requires_grad_(False).scale.requires_grad is False
    net.zero_grad(set_to_none=False)
    assert net.scale.grad.abs().sum().item() == 0
    net.zero_grad()
    assert net.scale.grad is None


def test_copies_keep_buffers_what_they_are():
    net = Net()
    for twin in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert list(twin.state_dict()) == list(net.state_dict())
        assert isinstance(twin.hidden, nn.Buffer) and twin.first is twin.twice


# ---- containers --------------------------------------------------------------------------


def test_sequential_is_a_list():
    parts = [nn.Linear(2, 2), nn.ReLU(), nn.Tanh()]
    model = nn.Sequential(*parts)
    model.insert(1, nn.Identity()).append(nn.Sigmoid())
    assert [type(m).__name__ for m in model] == ["Linear", "Identity", "ReLU", "Tanh", "Sigmoid"]
    assert list(model._modules) == ["0", "1", "2", "3", "4"]
    assert len(model[1:3]) == 2 and list(model[1:3]._modules) == ["1", "2"]
    assert model.pop(1).__class__ is nn.Identity and len(model) == 4 and model[-1] is model[3]
    del model[-1]
    model[1] = nn.GELU()
    assert [n for n, _ in model.named_children()] == ["0", "1", "2"]
    assert len(model + nn.Sequential(nn.ReLU())) == 4 and len(model * 2) == 6
    named = nn.Sequential(OrderedDict(first=parts[0], second=parts[1]))
    assert named.first is parts[0] and "second" in repr(named)
    with pytest.raises(IndexError):
        model[9]


def test_module_list_and_dict():
    made = nn.ModuleList([nn.ReLU()])
    made += [nn.Tanh(), nn.GELU()]
    made.insert(0, nn.Identity())
    assert len(made[1:]) == 3 and isinstance(made[-1], nn.GELU)
    assert [n for n, _ in made.named_children()] == ["0", "1", "2", "3"]
    held = nn.ModuleDict({"a": nn.ReLU()})
    held.update([("b", nn.Tanh())])
    assert list(held) == ["a", "b"] and "a" in held and isinstance(held.pop("a"), nn.ReLU)
    held.clear()
    assert len(held) == 0


def test_parameter_list_and_dict():
    made = nn.ParameterList([gf.ones(2), nn.Parameter(gf.zeros(3))])
    made.append(gf.ones(1)).extend([gf.ones(4)])
    assert [n for n, _ in made.named_parameters()] == ["0", "1", "2", "3"]
    made[0] = gf.zeros(5)
    assert isinstance(made[0], nn.Parameter) and len(made) == 4 and len(made[1:]) == 3
    assert "(0): Parameter containing: [graphflow.float32 of size 5]" in repr(made)
    held = nn.ParameterDict({"a": gf.ones(2)})
    held["b"] = nn.Parameter(gf.zeros(3))
    assert list(held.state_dict()) == ["a", "b"] and held.get("c") is None
    assert held.pop("a").shape == (2,) and [k for k, _ in held.items()] == ["b"]
    twin = copy.deepcopy(held)
    assert list(twin.keys()) == ["b"] and twin["b"] is not held["b"]


def test_containers_in_a_compiled_step():
    def program(jit):
        scales = nn.ParameterDict({"a": ramp(3), "b": ramp(3, offset=1.0)})
        layers = nn.ModuleList([linear(4, 3), nn.Sequential(nn.ReLU(), linear(3, 3))])

        def step(x):
            for layer, scale in zip(layers, scales.values(), strict=True):
                x = layer(x) * scale
            x.sum().backward()
            return x

        out = jit(step, **({"keep_grads": True} if jit is gf.compile else {}))(ramp(2, 4))
        return [out, *(p.grad for p in scales.values()), layers[1][1].weight.grad]

    agree(program)


def test_integers_are_parameters_without_gradients_only() -> None:
    numbers = gf.arange(3)
    with pytest.raises(gf.GraphFlowError, match=r"only floating-point tensors .* not int64"):
        nn.Parameter(numbers)
    assert nn.Parameter(numbers, requires_grad=False).tolist() == [0, 1, 2]
