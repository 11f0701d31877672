"""Parameters that are updated together share one count of their updates; others have their own.

The oracle is Adam in NumPy, each parameter with a count of its own.
"""

import copy

import numpy as np
import pytest

import graphflow as gf
from graphflow import nn, optim
from tests.test_optimizers import RULES, path_of, trajectory

RATE, FIRST, SECOND, EPS = 0.1, 0.9, 0.99, 1e-8


class Reference:
    """Adam of one parameter, in float64."""

    def __init__(self, value):
        self.value = np.asarray(value, np.float64)
        self.count, self.mean, self.square = 0, 0.0, 0.0

    def step(self, gradient):
        gradient = np.asarray(gradient, np.float64)
        self.count += 1
        self.mean = FIRST * self.mean + (1 - FIRST) * gradient
        self.square = SECOND * self.square + (1 - SECOND) * gradient**2
        mean = self.mean / (1 - FIRST**self.count)
        square = self.square / (1 - SECOND**self.count)
        self.value = self.value - RATE * mean / (np.sqrt(square) + EPS)


def adam(params, **options):
    return optim.Adam(params, lr=RATE, betas=(FIRST, SECOND), eps=EPS, **options)


def parameters(count):
    values = np.random.default_rng(3).normal(size=(count, 3)).astype(np.float32)
    return [nn.Parameter(gf.tensor(v)) for v in values], [Reference(v) for v in values]


def counters(opt):
    return [opt.state[p]["step"] for group in opt.param_groups for p in group["params"]]


def counts(opt):
    return [counter.item() for counter in counters(opt)]


def different(tensors):
    return len({id(t) for t in tensors})


def stepping(params, opt, jit):
    """A step whose loss reaches the first ``used`` of ``params``; its gradients are ``scale``."""

    def step(scale, used):
        opt.zero_grad()
        sum((p * scale).sum() for p in params[:used]).backward()
        opt.step()

    return gf.compile(step) if jit else step


def run(step, references, uses):
    for i, used in enumerate(uses):
        scale = 0.5 + i
        step(gf.tensor(scale), used)
        for reference in references[:used]:
            reference.step(np.full(3, scale))


def agree(params, references, opt):
    assert counts(opt) == [r.count for r in references]
    for p, r in zip(params, references, strict=True):
        np.testing.assert_allclose(p.detach(), r.value, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize(
    "make",
    [
        optim.Adam, optim.AdamW, optim.Adamax, optim.NAdam, optim.RAdam, optim.ASGD,
        optim.Adagrad, optim.Adadelta, optim.RMSprop, optim.Rprop, optim.LAMB,
        lambda params: optim.SGD(params, lr=0.1, momentum=0.9, dampening=0.5),
    ],
)  # fmt: skip
def test_a_program_has_one_count_for_all_parameters(make):
    layers = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 2))
    opt = make(layers.parameters())

    def step(x):
        opt.zero_grad()
        layers(x).sum().backward()
        opt.step()

    graph = gf.trace(step, gf.ones(2, 3))
    names = [node.attrs["name"] for node in graph.state]
    assert [name for name in names if name.split(".")[0] == "step"] == ["step"]
    assert different(counters(opt)) == 1 and counts(opt) == [0] * 6


@pytest.mark.parametrize("jit", [False, True])
def test_a_parameter_without_a_gradient_does_not_count(jit):
    params, references = parameters(4)
    opt = adam([{"params": params[:3]}, {"params": params[3:]}])
    step = stepping(params, opt, jit)
    run(step, references, [4, 4, 2, 4, 3, 4, 4])
    agree(params, references, opt)
    assert different(counters(opt)) == 3


@pytest.mark.parametrize("jit", [False, True])
def test_a_parameter_whose_first_gradient_comes_late_starts_at_one(jit):
    params, references = parameters(3)
    opt = adam(params)
    run(stepping(params, opt, jit), references, [2, 2, 3, 3])
    agree(params, references, opt)
    assert counts(opt) == [4, 4, 2] and different(counters(opt)) == 2


def test_two_steps_of_one_program_that_update_different_parameters():
    params, references = parameters(3)
    opt = adam(params)
    once = stepping(params, opt, False)

    @gf.compile
    def twice(scale):
        once(scale, 3)
        once(scale, 2)

    for scale in (0.5, 1.5, 2.5, 3.5):
        twice(gf.tensor(scale))
        for reference in (*references, *references[:2]):
            reference.step(np.full(3, scale))
    agree(params, references, opt)
    assert counts(opt) == [8, 8, 4]
    assert len(twice.programs) == 2


def test_a_program_that_updates_fewer_parameters_between_calls_of_another():
    params, references = parameters(3)
    opt = adam(params)
    compiled, eager = stepping(params, opt, True), stepping(params, opt, False)
    run(compiled, references, [3, 3])
    programs = len(compiled.programs)
    run(eager, references, [1])
    run(compiled, references, [3, 3])
    agree(params, references, opt)
    assert len(compiled.programs) == programs + 1


def test_a_saved_state_has_a_count_for_each_parameter():
    params, references = parameters(3)
    opt = adam(params)
    run(stepping(params, opt, False), references, [3, 3, 2])
    saved = opt.state_dict()["state"]
    assert [slots["step"].item() for slots in saved.values()] == [3, 3, 2]
    assert different(slots["step"] for slots in saved.values()) == 3
    saved[0]["step"].add_(1)  # what any other reader does, parameter by parameter
    assert counts(opt) == [3, 3, 2]


@pytest.mark.parametrize("number", [float, gf.tensor])
def test_loaded_counts_are_shared_where_they_are_equal(number):
    params, references = parameters(4)
    opt = adam(params)
    step = stepping(params, opt, True)
    run(step, references, [4])
    saved = opt.state_dict()
    held = counters(opt)[0]

    def load(*loaded):
        for slots, count in zip(saved["state"].values(), loaded, strict=True):
            slots["step"] = number(float(count))
        opt.load_state_dict(copy.deepcopy(saved))
        for p, r, slots, count in zip(
            params, references, saved["state"].values(), loaded, strict=True
        ):
            r.count, r.value = count, p.detach().numpy().astype(np.float64)
            r.mean, r.square = (slots[name].numpy().copy() for name in ("exp_avg", "exp_avg_sq"))

    load(7, 7, 7, 7)
    assert all(counter is held for counter in counters(opt))
    run(step, references, [4])
    agree(params, references, opt)
    assert len(step.programs) == 1
    load(2, 5, 2, 9)
    assert different(counters(opt)) == 3 and counters(opt)[0] is counters(opt)[2]
    run(step, references, [4, 4])
    agree(params, references, opt)
    fresh = adam(params)
    fresh.load_state_dict(copy.deepcopy(saved))
    assert counts(fresh) == [2, 5, 2, 9] and different(counters(fresh)) == 3


def test_loading_the_state_of_some_parameters_leaves_the_others():
    params, references = parameters(3)
    opt = adam(params)
    run(stepping(params, opt, False), references, [3, 3])
    saved = opt.state_dict()
    state = {0: {**saved["state"][0], "step": gf.tensor(6.0)}}
    opt.load_state_dict({**saved, "state": state})
    assert counts(opt) == [6, 2, 2]


def test_parameters_that_are_added_count_from_their_first_step():
    params, references = parameters(3)
    opt = adam(params[:2])
    step = stepping(params, opt, True)
    run(step, references[:2], [2, 2])
    opt.add_param_group({"params": params[2:]})
    params[2].grad = None
    run(step, references, [3, 3])
    agree(params, references, opt)
    assert counts(opt) == [4, 4, 2]


def test_a_copy_of_an_optimiser_counts_for_itself():
    params, references = parameters(2)
    opt = adam(params)
    run(stepping(params, opt, False), references, [2, 2])
    twin_params, twin = copy.deepcopy((params, opt))
    run(stepping(twin_params, twin, False), [Reference([0, 0, 0])] * 2, [2])
    assert counts(opt) == [2, 2] and counts(twin) == [3, 3]
    assert different(counters(twin)) == 1


def test_skipped_steps_of_a_scaler_count_for_nobody():
    params, _ = parameters(2)
    opt = adam(params)
    scaler = gf.amp.GradScaler("cpu", init_scale=4.0)

    @gf.compile
    def step(scale):
        opt.zero_grad()
        scaler.scale(sum((p * scale).sum() for p in params)).backward()
        scaler.step(opt)
        scaler.update()

    for scale in (1.0, float("inf"), 2.0, float("nan"), 3.0):
        step(gf.tensor(scale))
    assert counts(opt) == [3, 3]


def test_a_frozen_training_step_goes_on_counting(tmp_path):
    params, references = parameters(2)
    opt = adam(params)

    @gf.compile
    def step(scale):
        opt.zero_grad()
        loss = sum((p * scale).sum() for p in params)
        loss.backward()
        opt.step()
        return loss

    for scale in (0.5, 1.5):
        step(gf.tensor(scale))
        for reference in references:
            reference.step(np.full(3, scale))
    step.programs[0].save(tmp_path / "step.gf")
    frozen = gf.load_program(tmp_path / "step.gf")
    for scale in (2.5, 3.5):
        before = sum(scale * r.value.sum() for r in references)
        np.testing.assert_allclose(frozen(gf.tensor(scale)).item(), before, rtol=1e-4)
        for reference in references:
            reference.step(np.full(3, scale))


@pytest.mark.parametrize("jit", [lambda f: f, gf.compile], ids=["eager", "compiled"])
@pytest.mark.parametrize("name", ["Adam", "ASGD", "NAdam"])
def test_numbers_of_states_are_doubles_where_those_are_the_default(name, jit):
    kind, options, rule = RULES[name]
    before = gf.get_default_dtype()
    gf.set_default_dtype(gf.float64)
    try:
        path = path_of(kind, options, jit)
    finally:
        gf.set_default_dtype(before)
    np.testing.assert_allclose(path[-1], trajectory(rule)[-1], rtol=1e-12)
