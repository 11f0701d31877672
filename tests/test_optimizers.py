"""Optimisers against the published updates in NumPy, eager and compiled; groups, hooks, states."""

import copy

import numpy as np
import pytest

import graphflow as gf
from graphflow import nn, optim
from tests.front import agree, linear, ramp, training_step

STEPS = 20
START = np.sin(np.arange(12) * 1.7 + 0.3).reshape(4, 3)
TARGET = np.cos(np.arange(12) * 0.9).reshape(4, 3)
SCALE = np.linspace(0.3, 3.0, 12).reshape(4, 3)


def slope(p):
    return SCALE * (p - TARGET)


def trajectory(rule, steps=STEPS):
    """``rule(p, g, t, state) -> p`` from START; t counts from 1."""
    p, state, path = START.copy(), {}, []
    for t in range(1, steps + 1):
        p = rule(p, slope(p), t, state)
        path.append(p)
    return path


def moments(g, t, s, b1=0.9, b2=0.999):
    s["m"] = b1 * s.get("m", 0) + (1 - b1) * g
    s["v"] = b2 * s.get("v", 0) + (1 - b2) * g * g
    return s["m"] / (1 - b1**t), s["v"] / (1 - b2**t)


def sgd(p, g, t, s, momentum=0.9, dampening=0.0, decay=0.0, nesterov=False):
    g = g + decay * p
    s["v"] = g if t == 1 else momentum * s["v"] + (1 - dampening) * g
    return p - 0.1 * (g + momentum * s["v"] if nesterov else s["v"])


def adam(p, g, t, s, lr=0.05, decay=0.0, decoupled=False, amsgrad=False):
    p, g = (p * (1 - lr * decay), g) if decoupled else (p, g + decay * p)
    m, _ = moments(g, t, s)
    s["largest"] = np.maximum(s.get("largest", 0), s["v"])
    v = (s["largest"] if amsgrad else s["v"]) / (1 - 0.999**t)
    return p - lr * m / (np.sqrt(v) + 1e-8)


def adagrad(p, g, t, s):
    s["s"] = s.get("s", 0.2) + g * g
    return p - 0.3 / (1 + (t - 1) * 0.1) * g / (np.sqrt(s["s"]) + 1e-10)


def adadelta(p, g, t, s):
    s["s"] = 0.8 * s.get("s", 0) + 0.2 * g * g
    d = np.sqrt(s.get("d", 0) + 1e-6) / np.sqrt(s["s"] + 1e-6) * g
    s["d"] = 0.8 * s.get("d", 0) + 0.2 * d * d
    return p - 2.0 * d


def rmsprop(p, g, t, s):
    s["s"] = 0.9 * s.get("s", 0) + 0.1 * g * g
    s["m"] = 0.9 * s.get("m", 0) + 0.1 * g
    s["b"] = 0.5 * s.get("b", 0) + g / (np.sqrt(s["s"] - s["m"] ** 2) + 1e-3)
    return p - 0.02 * s["b"]


def adamax(p, g, t, s):
    m, _ = moments(g, t, s)
    s["u"] = np.maximum(0.999 * s.get("u", 0), np.abs(g) + 1e-8)
    return p - 0.05 * m / s["u"]


def nadam(p, g, t, s):
    mu, then = (0.9 * (1 - 0.5 * 0.96 ** (k * 0.01)) for k in (t, t + 1))
    s["product"] = s.get("product", 1) * mu
    moments(g, t, s)
    top = (1 - mu) / (1 - s["product"]) * g + then / (1 - s["product"] * then) * s["m"]
    return p - 0.05 * top / (np.sqrt(s["v"] / (1 - 0.999**t)) + 1e-8)


def radam(p, g, t, s):
    m, v = moments(g, t, s, b2=0.9)
    top = 2 / (1 - 0.9) - 1
    rho = top - 2 * t * 0.9**t / (1 - 0.9**t)
    if rho <= 5:
        return p - 0.05 * m
    r = np.sqrt((rho - 4) * (rho - 2) * top / ((top - 4) * (top - 2) * rho))
    return p - 0.05 * m * r / (np.sqrt(v) + 1e-8 / np.sqrt(1 - 0.9**t))


def lamb(p, g, t, s):
    m, v = moments(g, t, s)
    r = m / (np.sqrt(v) + 1e-6) + 0.1 * p
    return p - 0.05 * np.linalg.norm(p) / np.linalg.norm(r) * r


def rprop(p, g, t, s):
    sign = np.sign(g * s.get("g", 0))
    size = s.get("size", 0.05) * np.select([sign > 0, sign < 0], [1.2, 0.5], 1.0)
    s["size"] = np.clip(size, 1e-6, 50)
    s["g"] = np.where(sign < 0, 0, g)
    return p - np.sign(s["g"]) * s["size"]


def asgd(p, g, t, s):
    eta = s.get("eta", 0.1)
    s["eta"] = 0.1 / (1 + 0.01 * 0.1 * t) ** 0.75
    return p * (1 - 0.01 * eta) - eta * g


RULES = {
    "SGD": (optim.SGD, {"lr": 0.1, "momentum": 0.9}, sgd),
    "SGD dampened": (
        optim.SGD,
        {"lr": 0.1, "momentum": 0.9, "dampening": 0.5},
        lambda *a: sgd(*a, dampening=0.5),
    ),
    "SGD Nesterov": (
        optim.SGD,
        {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1},
        lambda *a: sgd(*a, decay=0.1, nesterov=True),
    ),
    "Adam": (optim.Adam, {"lr": 0.05}, adam),
    "Adam decay": (
        optim.Adam,
        {"lr": 0.05, "weight_decay": 0.1},
        lambda *a: adam(*a, decay=0.1),
    ),
    "AMSGrad": (optim.Adam, {"lr": 0.05, "amsgrad": True}, lambda *a: adam(*a, amsgrad=True)),
    "AdamW": (
        optim.AdamW,
        {"lr": 0.05, "weight_decay": 0.1},
        lambda *a: adam(*a, decay=0.1, decoupled=True),
    ),
    "Adagrad": (
        optim.Adagrad,
        {"lr": 0.3, "lr_decay": 0.1, "initial_accumulator_value": 0.2},
        adagrad,
    ),
    "Adadelta": (optim.Adadelta, {"lr": 2.0, "rho": 0.8}, adadelta),
    "RMSprop": (
        optim.RMSprop,
        {"lr": 0.02, "alpha": 0.9, "eps": 1e-3, "momentum": 0.5, "centered": True},
        rmsprop,
    ),
    "Adamax": (optim.Adamax, {"lr": 0.05}, adamax),
    "NAdam": (optim.NAdam, {"lr": 0.05, "momentum_decay": 0.01}, nadam),
    "RAdam": (optim.RAdam, {"lr": 0.05, "betas": (0.9, 0.9)}, radam),
    "LAMB": (optim.LAMB, {"lr": 0.05, "weight_decay": 0.1}, lamb),
    "Rprop": (optim.Rprop, {"lr": 0.05}, rprop),
    "ASGD": (optim.ASGD, {"lr": 0.1, "lambd": 0.01}, asgd),
}


def path_of(kind, options, jit, maximize=False):
    p = nn.Parameter(gf.tensor(START))
    opt = kind([p], **options)
    scale, target = gf.tensor(SCALE), gf.tensor(TARGET)

    def step():
        opt.zero_grad()
        loss = (scale * (p - target) ** 2).sum() / 2
        (-loss if maximize else loss).backward()
        opt.step()
        return p.detach().clone()

    run = jit(step)
    return [run().numpy() for _ in range(STEPS)]


@pytest.mark.parametrize("jit", [lambda f: f, gf.compile], ids=["eager", "compiled"])
@pytest.mark.parametrize("name", RULES)
def test_twenty_steps_follow_the_published_update(name, jit):
    kind, options, rule = RULES[name]
    # The count and its like are float32, as in PyTorch; so the distance is not quite 0.
    for got, want in zip(path_of(kind, options, jit), trajectory(rule), strict=True):
        np.testing.assert_allclose(got, want, rtol=0, atol=2e-6)


@pytest.mark.parametrize("name", ["SGD", "AdamW", "RMSprop", "NAdam", "Adagrad", "LAMB"])
def test_maximize_goes_up(name):
    kind, options, _ = RULES[name]
    down = path_of(kind, options, lambda f: f)
    up = path_of(kind, {**options, "maximize": True}, lambda f: f, maximize=True)
    np.testing.assert_allclose(up[-1], down[-1], atol=1e-12)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("RMSprop", {"alpha": 0.5, "momentum": 0.2, "eps": 1e-2}),
        ("Adagrad", {"lr_decay": 0.5}),
        ("NAdam", {"momentum_decay": 0.1, "betas": (0.8, 0.9)}),
        ("RAdam", {"lr": 0.01}),
        ("Rprop", {"etas": (0.7, 1.5)}),
        ("LAMB", {"weight_decay": 0.5}),
    ],
)
def test_options_take_effect_without_another_trace(name, changes):
    kind, options, _ = RULES[name]

    def program(jit):
        model = linear()
        opt = kind(model.parameters(), **options)
        step = training_step(model, opt, jit)
        losses = [step(ramp(5, 4)) for _ in range(3)]
        opt.param_groups[0].update(changes)
        losses += [step(ramp(5, 4)) for _ in range(3)]
        assert len(getattr(step, "programs", [1])) == 1
        return [*losses, *model.parameters()]

    agree(program, rtol=1e-5, atol=3e-6)


@pytest.mark.parametrize("name", ["SGD Nesterov", "AdamW", "RMSprop", "LAMB", "Rprop"])
def test_equal_parameters_are_traced_as_if_one_by_one(name):
    """What is repeated for equal parameters is the graph that each update makes by itself."""
    kind, options, _ = RULES[name]

    class Own(kind):
        """Outside the package nothing is known of an optimiser, and nothing is repeated."""

    def graphs(kind):
        model = nn.Sequential(*(linear(4, 4) for _ in range(3)), linear(4, 3))
        tied = model[1].weight
        groups = [
            {"params": [*model[:2].parameters(), *model[3].parameters()]},
            {"params": model[2].parameters(), "lr": 0.01},
        ]
        opt = kind(groups, **options)

        def step(x, times):
            for _ in range(times):
                opt.zero_grad()
                loss = model(x).sum() + (tied * tied).sum()
                loss.backward()
                opt.step()
            return loss

        return [gf.trace(step, ramp(2, 4), times) for times in (1, 2)]

    for repeated, single in zip(graphs(kind), graphs(Own), strict=True):
        assert repeated.same_as(single)
        assert len(repeated.locations) == len(single.locations)


def test_groups_have_their_own_options():
    model = nn.Sequential(linear(4, 4), linear(4, 3))
    groups = [{"params": model[0].named_parameters(), "lr": 0.0, "lr_scale": 3}]
    opt = optim.Adam(groups, lr=0.1)
    opt.add_param_group({"params": model[1].weight})
    assert opt.param_groups[0]["param_names"] == ["weight", "bias"]
    before = copy.deepcopy(model.state_dict())
    model(ramp(2, 4)).sum().backward()
    opt.step()
    moved = [k for k, v in model.state_dict().items() if not gf.equal(v, before[k])]
    assert moved == ["1.weight"]
    assert opt.param_groups[0]["lr_scale"] == 3


def test_states_are_laid_out_as_pytorchs():
    slots = {
        "SGD": ["momentum_buffer"],
        "AMSGrad": ["step", "exp_avg", "exp_avg_sq", "max_exp_avg_sq"],
        "Adagrad": ["step", "sum"],
        "Adadelta": ["step", "square_avg", "acc_delta"],
        "RMSprop": ["step", "square_avg", "grad_avg", "momentum_buffer"],
        "Adamax": ["step", "exp_avg", "exp_inf"],
        "NAdam": ["step", "mu_product", "exp_avg", "exp_avg_sq"],
    }
    for name, expected in slots.items():
        kind, options, _ = RULES[name]
        p = nn.Parameter(gf.ones(2))
        opt = kind([p], **options)
        p.grad = gf.ones(2)
        opt.step()
        state = opt.state_dict()
        assert sorted(state["state"][0]) == sorted(expected), name
        assert state["param_groups"][0]["params"] == [0]


@pytest.mark.parametrize("name", RULES)
def test_a_saved_state_continues_the_path(name):
    kind, options, _ = RULES[name]

    def run(p, opt, steps):
        for _ in range(steps):
            p.grad = gf.tensor(slope(p.detach().numpy()))
            opt.step()
        return p.detach().numpy()

    p = nn.Parameter(gf.tensor(START))
    opt = kind([p], **options)
    run(p, opt, 5)
    other = nn.Parameter(p.detach().clone())
    twin = kind([other], **options)
    twin.load_state_dict(opt.state_dict())
    np.testing.assert_array_equal(run(p, opt, 5), run(other, twin, 5))


def test_a_state_in_pytorchs_words_is_taken():
    """What PyTorch 2.13 saves for SGD with dampening, and older Adam: counts that are numbers."""
    p, q = nn.Parameter(gf.ones(2)), nn.Parameter(gf.ones(2))
    opt = optim.SGD([p, q], lr=0.5, momentum=0.9, dampening=0.5)
    group = {
        "lr": 0.1, "momentum": 0.9, "dampening": 0.5, "weight_decay": 0, "nesterov": False,
        "maximize": False, "foreach": None, "differentiable": False, "fused": None,
        "params": [7, 3],
    }  # fmt: skip
    state = {7: {"momentum_buffer": gf.tensor([1.0, 2.0])}, 3: {"momentum_buffer": None}}
    opt.load_state_dict({"state": state, "param_groups": [group]})
    p.grad = q.grad = gf.ones(2)
    opt.step()
    np.testing.assert_allclose(p.detach(), 1 - 0.1 * (0.9 * np.array([1, 2]) + 0.5), rtol=1e-6)
    np.testing.assert_allclose(q.detach(), [0.9, 0.9], rtol=1e-6)
    adam_ = optim.Adam([p])
    old = {"step": 4, "exp_avg": gf.ones(2), "exp_avg_sq": gf.ones(2)}
    options = {**adam_.state_dict()["param_groups"][0]}
    adam_.load_state_dict({"state": {0: old}, "param_groups": [options]})
    adam_.step()
    assert adam_.state[p]["step"].item() == 5


def test_step_hooks_and_closures():
    p, calls = nn.Parameter(gf.ones(2)), []
    opt = optim.SGD([p], lr=0.1)
    before = opt.register_step_pre_hook(lambda o, args, kwargs: calls.append("before"))
    opt.register_step_post_hook(lambda o, args, kwargs: calls.append("after"))

    def closure():
        opt.zero_grad()
        loss = (p * p).sum()
        loss.backward()
        return loss

    assert opt.step(closure).item() == 2
    before.remove()
    opt.step(closure)
    assert calls == ["before", "after", "after"]
    opt.zero_grad(set_to_none=False)
    assert p.grad.sum().item() == 0
    with pytest.raises(NotImplementedError, match="differentiable"):
        optim.Adam([p], differentiable=True)
    for wrong in ({"rho": 2.0}, {"lr": -1}):
        with pytest.raises(ValueError, match="Invalid"):
            optim.Adadelta([p], **wrong)


@pytest.mark.parametrize("jit", [lambda f: f, gf.compile], ids=["eager", "compiled"])
@pytest.mark.parametrize("name", [name for name in RULES if name != "LAMB"])  # it has norms
def test_complex_numbers_are_updated_as_pairs_of_real_ones(name, jit):
    kind, options, _ = RULES[name]
    rng = np.random.default_rng(8)
    first, target = (rng.standard_normal((3, 2)) for _ in range(2))
    reached = []
    for joined in (False, True):
        made = gf.tensor(first)
        p = nn.Parameter(gf.view_as_complex(made).clone() if joined else made)
        opt, wanted = kind([p], **options), gf.tensor(target)

        def step(p=p, opt=opt, wanted=wanted):
            opt.zero_grad()
            ((gf.view_as_real(p) if p.is_complex() else p) - wanted).abs().pow(1.5).sum().backward()
            opt.step()

        run = jit(step)
        for _ in range(4):
            run()
        held = [v for key, v in opt.state[p].items() if key in ("exp_avg", "square_avg", "prev")]
        assert all(value.dtype == p.dtype and value.shape == p.shape for value in held)
        reached.append(gf.view_as_real(p.detach()).numpy() if joined else p.detach().numpy())
        copy.deepcopy(opt).load_state_dict(opt.state_dict())
    np.testing.assert_allclose(reached[1], reached[0], rtol=1e-12)
    assert np.abs(reached[0] - first).max() > 1e-3


def test_complex_numbers_that_an_optimiser_cannot_take():
    z = nn.Parameter(gf.ones(2, 2, dtype=gf.complex64))
    for kind in (optim.Adafactor, optim.Muon):
        with pytest.raises(RuntimeError, match="does not support complex"):
            kind([z])


def test_the_state_of_a_parameter_is_there_when_asked_for():
    class Counting(optim.Optimizer):
        def __init__(self, params):
            super().__init__(params, {"lr": 0.5})

        def step(self):
            for p in self.param_groups[0]["params"]:
                state = self.state[p]
                if not state:
                    state["steps"] = 0
                state["steps"] += 1

    p = nn.Parameter(gf.ones(2))
    opt = Counting([p])
    opt.step()
    opt.step()
    assert opt.state_dict()["state"] == {0: {"steps": 2}}


def test_an_optimiser_made_inside_a_compiled_function_is_refused_by_name():
    weight = nn.Parameter(gf.ones(2))
    with pytest.raises(gf.TraceError, match="cannot be made inside a compiled function"):
        gf.compile(lambda: optim.SGD([weight], lr=0.1))()


def test_muon_steps_along_nearly_orthogonal_matrices() -> None:
    rng = np.random.default_rng(6)
    for shape in ((8, 5), (4, 7)):
        first = rng.standard_normal(shape)
        gradients = [rng.standard_normal(shape) for _ in range(3)]
        parameter = gf.tensor(first, dtype=gf.float32, requires_grad=True)
        optimizer = gf.optim.Muon([parameter], lr=0.5, weight_decay=0.1)
        value, held = first.copy(), np.zeros(shape)
        for gradient in gradients:
            held += 0.05 * (gradient - held)
            x = 0.05 * gradient + 0.95 * held
            x = x if shape[0] <= shape[1] else x.T
            x = x / np.linalg.norm(x)
            for _ in range(5):
                gram = x @ x.T
                x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
            assert np.linalg.svd(x)[1].min() > 0.5
            x = x if shape[0] <= shape[1] else x.T
            value = value * (1 - 0.5 * 0.1) - 0.5 * max(1, shape[0] / shape[1]) ** 0.5 * x
            parameter.grad = gf.tensor(gradient, dtype=gf.float32)
            optimizer.step()
        # Products are rounded to bfloat16, five times over.
        assert np.abs(parameter.detach().numpy() - value).max() < 0.06
    for wrong in ({"momentum": -1}, {"adjust_lr_fn": "no"}, {"ns_steps": 100}):
        with pytest.raises(ValueError):
            gf.optim.Muon([parameter], **wrong)
    with pytest.raises(ValueError, match="2D"):
        gf.optim.Muon([gf.zeros(3, requires_grad=True)])


@pytest.mark.parametrize("shape", [(4, 3), (5,), (2, 3, 4)])
def test_adafactor_factors_the_second_moments_of_matrices(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(7)
    first = rng.standard_normal(shape)
    parameter = gf.tensor(first, requires_grad=True)
    optimizer = gf.optim.Adafactor([parameter], lr=0.3, weight_decay=0.1, d=1.5)
    value, moments = first.copy(), {"row": 0.0, "col": 0.0, "all": 0.0}
    for t in range(1, 4):
        gradient = rng.standard_normal(shape) * 3
        parameter.grad = gf.tensor(gradient)
        optimizer.step()
        square, fresh = gradient**2, t**-0.8
        rate = max(1e-3, np.sqrt((value**2).mean())) * min(0.3, t**-0.5)
        value *= 1 - 0.3 * 0.1
        if len(shape) > 1:
            for name, axis in (("row", -1), ("col", -2)):
                mean = square.mean(axis, keepdims=True)
                moments[name] = moments[name] + fresh * (mean - moments[name])
            estimate = moments["row"] @ moments["col"] / moments["row"].mean(-2, keepdims=True)
        else:
            moments["all"] = moments["all"] + fresh * (square - moments["all"])
            estimate = moments["all"]
        direction = gradient / np.sqrt(estimate)
        value -= rate * direction / max(1.0, np.sqrt((direction**2).mean()) / 1.5)
        np.testing.assert_allclose(parameter.detach().numpy(), value, rtol=1e-6, atol=1e-9)
    names = {"step", "row_var", "col_var"} if len(shape) > 1 else {"step", "variance"}
    assert set(optimizer.state_dict()["state"][0]) == names
    for wrong in ({"beta2_decay": 0.1}, {"d": 0.5}, {"eps": (-1.0, 1e-3)}):
        with pytest.raises(ValueError):
            gf.optim.Adafactor([parameter], **wrong)


def test_options_may_be_numbers_of_numpy():
    options = {"lr": np.float32(0.1), "betas": (np.float32(0.9), np.float64(0.99))}
    for compile in (lambda f: f, gf.compile):
        model, twin = linear(), linear()
        opt = optim.AdamW(model.parameters(), weight_decay=np.float32(0.5), **options)
        plain = optim.AdamW(
            twin.parameters(), lr=float(np.float32(0.1)), betas=(float(np.float32(0.9)), 0.99),
            weight_decay=0.5,
        )  # fmt: skip
        steps = [training_step(m, o, compile) for m, o in ((model, opt), (twin, plain))]
        for rate in (0.1, 0.025):
            opt.param_groups[0]["lr"], plain.param_groups[0]["lr"] = np.float32(rate), rate
            first, second = (step(ramp(5, 4)) for step in steps)
            np.testing.assert_allclose(first.item(), second.item(), rtol=1e-6)
        weights = (m.weight.detach().numpy() for m in (model, twin))
        np.testing.assert_allclose(*weights, rtol=1e-6, atol=1e-7)
    with pytest.raises(ValueError, match="learning rate"):
        optim.SGD(linear().parameters(), lr=np.float32("nan"))
