"""Attributes of modules that compiled functions assign, beside the same functions run eagerly."""

import copy

import numpy as np
import pytest

import graphflow as gf
from graphflow import nn
from tests.front import numbers

RNG = np.random.default_rng(11)
X = [gf.tensor(RNG.standard_normal((n, 3))) for n in (4, 4, 4, 2, 4, 2, 4, 4)]


def agree(found, wanted):
    for a, b in zip(numbers(found), numbers(wanted), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14)


class Carrying(nn.Module):
    """[n, 3] to [n, 2]; carries a nest, a buffer and a number, and leaves other values behind."""

    def __init__(self):
        super().__init__()
        self.inner, self.outer = nn.Linear(3, 5), nn.Linear(5, 2)
        self.register_buffer("mean", gf.zeros(5).double())
        self.register_buffer("first", None)
        self.state, self.loss, self.seen, self.turned = None, None, gf.zeros(()), None

    def forward(self, x):
        if self.state is None or self.state["h"].shape[0] != x.shape[0]:
            self.state = {"h": x.new_zeros(x.shape[0], 5), "more": [1]}
        h = gf.tanh(self.inner(x) + 0.5 * self.state["h"])
        self.state = {"h": h.detach(), "more": [1]}
        before = self.mean
        self.mean = 0.9 * self.mean + 0.1 * h.detach().mean(0)
        self.before = before
        if self.first is None:
            self.first = self.mean
        self.seen = self.seen + 1
        self.loss = h.square().mean()
        self.turned = h.t()
        return self.outer(h * self.mean.exp())


def looked_at(module, x, out):
    """What a step leaves: results, attributes, gradients also by way of an attribute."""
    module.zero_grad()
    (out.square().sum() + 3 * module.loss).backward()
    gradients = [p.grad for p in module.parameters()]
    names = "mean", "before", "first", "seen", "loss", "turned"
    left = [getattr(module, name).detach() for name in names]
    return [out.detach(), module.state["h"], *left, *gradients]


@pytest.mark.parametrize("dynamic", [False, None])
def test_attributes_go_on_from_call_to_call(dynamic):
    eager = Carrying().double()
    made = copy.deepcopy(eager)
    compiled = gf.compile(made, dynamic=dynamic)
    kept = []
    for step, x in enumerate(X):
        if step == 6:
            start = gf.ones(5).double()
            eager.mean = start.clone()
            made.mean = start
            eager.state = made.state = None
        agree(looked_at(made, x, compiled(x)), looked_at(eager, x, eager(x)))
        kept.append((made.mean, eager.mean))
    for ours, theirs in kept:  # every call made a new tensor
        agree(ours, theirs)
    np.testing.assert_array_equal(start, np.ones(5))
    assert list(made.state_dict()) == list(eager.state_dict())


def test_what_is_carried_needs_no_other_trace():
    class Mean(nn.Module):
        def __init__(self):
            super().__init__()
            self.value, self.hidden = gf.zeros(3).double(), None

        def forward(self, x):
            self.value = self.value * 0.5 + x.sum(0)
            self.hidden = x * 2
            return self.hidden.sum()

    module = Mean()
    compiled = gf.compile(module, dynamic=False)
    wanted = np.zeros(3)
    for x in X:
        wanted = wanted * 0.5 + x.numpy().sum(0)
        assert compiled(x).item() == pytest.approx(2 * x.sum().item())
        np.testing.assert_allclose(module.value, wanted)
        np.testing.assert_array_equal(module.hidden, 2 * x.numpy())
    assert len(compiled.programs) == 3  # the first, and one a size
    reading = gf.compile(lambda: module.value * 1)
    for _ in range(3):
        compiled(X[0])
        agree(reading(), module.value)
    assert len(reading.programs) == 1


def test_a_trace_leaves_modules_as_they_were():
    class Wrong(nn.Module):
        def __init__(self):
            super().__init__()
            self.value, self.fails = None, True

        def forward(self, x):
            self.value, self.later = x * 2, x
            if self.fails:
                raise RuntimeError("no")
            return x

    module = Wrong()
    with pytest.raises(RuntimeError, match="no"):
        gf.compile(module)(X[0])
    assert module.value is None and not hasattr(module, "later")
    module.fails = False
    graph = gf.trace(module, gf.TensorSpec((2, 3)))
    assert module.value is None and len(graph.outputs) == 1
    gf.compile(module)(X[0])
    agree(module.value, X[0] * 2)
    assert module.later is X[0]


def test_bodies_of_loops_assign_nothing():
    class Summed(nn.Module):
        def forward(self, x):
            def body(total, row):
                self.total = total + row
                return total + row, row

            return gf.scan(body, x.new_zeros(3), x)

    with pytest.raises(gf.TraceError, match="assigns a tensor to 'total'"):
        gf.compile(Summed())(X[0])


def test_replaced_attributes_of_any_kind_are_noticed():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale, self._parts, self.named = gf.ones(3), [gf.ones(3)], {"a": gf.ones(3)}

        def forward(self, x):
            return x * self.scale + self._parts[0] + self.named["a"]

    module = Scaled()
    compiled = gf.compile(module)
    x = gf.ones(3)
    assert compiled(x).tolist() == [3, 3, 3]
    module.scale = gf.zeros(3)
    assert compiled(x).tolist() == [2, 2, 2]
    module._parts = [gf.zeros(3)]
    assert compiled(x).tolist() == [1, 1, 1]
    module.named = {"a": gf.zeros(3)}
    assert compiled(x).tolist() == [0, 0, 0]


class OwnAdam(gf.optim.Optimizer):
    """As people write them: numbers and tensors in ``self.state``, made at the first step."""

    def __init__(self, params):
        super().__init__(params, {"lr": 0.1, "betas": (0.9, 0.99)})

    @gf.no_grad()
    def step(self):
        for group in self.param_groups:
            first, second = group["betas"]
            for p in group["params"]:
                state = self.state[p]
                if len(state) == 0:
                    state["step"], state["decay"] = 0, 0.5
                    state["mean"], state["square"] = gf.zeros_like(p), gf.zeros_like(p)
                state["step"] += 1
                state["decay"] = state["decay"] * 0.9
                state["mean"] = state["mean"] * first + p.grad * (1 - first)
                state["square"].mul_(second).addcmul_(p.grad, p.grad, value=1 - second)
                state["before"] = p.detach().clone()
                left = group["lr"] * state["decay"] / (1 - first ** state["step"])
                right = (state["square"] / (1 - second ** state["step"])).sqrt()
                p.addcdiv_(state["mean"], right + 1e-8, value=-left)


def test_an_optimiser_of_ones_own_has_its_state_compiled():
    found = []
    for jit in (lambda f: f, gf.compile):
        p = nn.Parameter(gf.tensor([1.0, -2.0, 0.5]).double())
        opt = OwnAdam([p])

        def step(target, p=p, opt=opt):
            opt.zero_grad()
            (p - target).square().sum().backward()
            opt.step()

        run, path = jit(step), []
        for number, x in enumerate(X):
            if number == 3:
                kept = copy.deepcopy(opt.state_dict())
            if number == 6:
                opt.param_groups[0]["lr"] = 0.02
                opt.load_state_dict(kept)
            run(x[0])
            state = opt.state[p]
            assert type(state["step"]) is int and type(state["decay"]) is float
            path.append([p.detach(), *(state[name] for name in sorted(state))])
        found.append(path)
    assert found[0][-1][-1] == 5  # the count of steps, after it was loaded once
    for ours, theirs in zip(found[1], found[0], strict=True):
        agree(ours, theirs)
    assert len(run.programs) == 2


def carrying_by_a_name():
    value = gf.zeros(3)

    def step(x):
        nonlocal value
        value = value * 0.5 + x
        return value.sum()

    return step


def carrying_in_a_container(held):
    def step(x):
        key = next(iter(held)) if isinstance(held, dict) else 0
        held[key] = held[key] * 0.5 + x
        return held[key].sum()

    return step


@pytest.mark.parametrize(
    "make",
    [
        carrying_by_a_name,
        lambda: carrying_in_a_container({"a": gf.zeros(3)}),
        lambda: carrying_in_a_container([gf.zeros(3)]),
    ],
)
def test_what_is_carried_elsewhere_is_refused(make):
    assert make()(gf.ones(3)).item() == 3
    with pytest.raises(gf.TraceError, match="puts another one in its place"):
        gf.compile(make())(gf.ones(3))


def test_containers_may_hold_what_a_call_begins_and_ends_with():
    held, seen = {}, []

    def step(x):
        held["double"] = x * 2
        seen.append(x)
        return held["double"].sum()

    compiled = gf.compile(step)
    assert [compiled(gf.ones(3) * k).item() for k in range(3)] == [0, 6, 12]


def test_what_a_hook_keeps_in_a_module_is_that_of_every_call():
    model = nn.Sequential(nn.Linear(3, 3), nn.Tanh())
    model.kept = None
    outside = {}

    def keep(module, args, out):
        model.kept = outside["first"] = out

    model[0].register_forward_hook(keep)
    call = gf.compile(model)
    for scale in (1.0, 2.0):
        x = X[0].float() * scale
        call(x)
        agree_loosely = {"rtol": 1e-5, "atol": 1e-6}
        wanted = (x @ model[0].weight.T + model[0].bias).detach().numpy()
        np.testing.assert_allclose(model.kept.detach().numpy(), wanted, **agree_loosely)
        with pytest.raises(gf.TraceError, match="assign it to an attribute of a module"):
            outside["first"].sum()


class Codebook(nn.Module):
    """Averages its vectors into new parameters, as implementations of VQ-VAE do."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(gf.ones(3).double())
        self.vectors = nn.Parameter(gf.ones(4, 3).double())
        self.counts = nn.Buffer(gf.zeros(1))
        self.last = gf.zeros(())

    def forward(self, x):
        y = (x * self.scale) @ self.vectors.detach().T
        self.vectors = nn.Parameter(0.9 * self.vectors + 0.1 * y.mean(0)[:, None])
        self.counts = nn.Buffer(self.counts + 1)
        self.last = nn.Parameter(y.detach().sum(), requires_grad=False)
        return y


def test_parameters_that_a_function_makes_are_new_at_every_call():
    for wholly in (True, False):
        eager, other = Codebook(), Codebook()
        steps = []
        for model in (eager, other):
            optimizer = gf.optim.SGD(model.parameters(), lr=0.1)

            def step(x, model=model, optimizer=optimizer):
                optimizer.zero_grad()
                loss = model(x).square().mean()
                loss.backward()
                optimizer.step()
                return loss

            steps.append(step)
        if wholly:
            steps[1] = gf.compile(steps[1])
        else:
            other.compile()
        for x in X:
            held = other.vectors
            agree(steps[1](x), steps[0](x))
            assert other.vectors is not held and held.grad is None
            assert list(other.state_dict()) == list(eager.state_dict())
            agree(list(other.state_dict().values()), list(eager.state_dict().values()))
            assert isinstance(other.vectors, nn.Parameter) and other.vectors.requires_grad
            assert isinstance(other.counts, nn.Buffer) and not other.last.requires_grad


def test_another_function_differentiates_by_the_parameter_that_is_there():
    model = Codebook()
    replaces, reads = gf.compile(model.forward), gf.compile(lambda x: x * model.vectors)
    for x in X[:4]:
        replaces(x)
        reads(gf.ones(4, 3).double()).sum().backward()
        agree(model.vectors.grad, gf.ones(4, 3).double())


def test_a_parameter_with_a_gradient_is_not_replaced():
    model = Codebook()

    def before(x):
        y = x @ model.vectors.T
        model.vectors = nn.Parameter(model.vectors * 2)
        return y

    def after(x):
        model.vectors = nn.Parameter(model.vectors.detach() * 2)
        (x @ model.vectors.T).sum().backward()

    for function in (before, after):
        with pytest.raises(gf.TraceError, match="gives a gradient to 'vectors', a parameter"):
            gf.compile(function)(X[0])
    agree(model.vectors, gf.ones(4, 3).double())


class Explained(nn.Module):
    """Keeps the gradient of a hidden value, as Grad-CAM does."""

    def __init__(self):
        super().__init__()
        self.inner, self.gradient, self.hidden = nn.Linear(3, 2), None, None

    def keep(self, gradient):
        self.gradient = gradient

    def forward(self, x):
        self.hidden = self.inner(x)
        self.hidden.register_hook(self.keep)
        return self.hidden.square().sum()


def test_what_a_hook_assigns_is_left_behind_by_the_function_that_runs_it():
    model, x = Explained(), X[0].float()

    def step(x):
        model(x).backward()
        return model.gradient

    given = gf.compile(step)(x)
    for found in (given, model.gradient):
        np.testing.assert_allclose(found.numpy(), 2 * model.hidden.detach().numpy(), rtol=1e-6)
    model.gradient = None
    with pytest.raises(gf.TraceError, match="assigns 'gradient' in the backward pass"):
        gf.compile(model.forward)(x)
    assert model.gradient is None


class Remembering(nn.Module):
    """Attends to the last values of all calls, which it keeps as a part of a longer tensor."""

    def __init__(self):
        super().__init__()
        self.memory = nn.Buffer(gf.zeros(4, 3).double())
        self.turned, self.shared = gf.zeros(3, 4).double(), None

    def forward(self, x):
        longer = gf.cat([self.memory, x])
        self.memory = longer[-4:].detach()
        self.turned = (self.turned + 1).t().t()
        self.shared = x * 2
        return longer.sum(0) + self.turned.sum(), self.shared[1:]


def test_views_that_are_assigned_are_no_reason_to_trace_again():
    eager, model = Remembering(), Remembering()
    compiled = gf.compile(model.forward)
    for _ in range(5):
        (found, part), (wanted, _) = compiled(X[0]), eager(X[0])
        agree(found, wanted)
        agree([model.memory, model.turned, part], [eager.memory, eager.turned, model.shared[1:]])
        part.zero_()
        assert not model.shared[1:].any()  # what several see stays one memory
    assert len(compiled.recompiles) <= 2
