"""Parts computed again for the gradient: the same numbers with less memory, eager and compiled."""

import copy

import numpy as np
import pytest

import graphflow as gf
import graphflow.nn.functional as F
from graphflow import nn, optim
from graphflow.utils.checkpoint import checkpoint, checkpoint_sequential
from tests.front import agree, ramp


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.drop = nn.Dropout(0.2)

    def forward(self, x):
        return x + self.drop(self.down(F.gelu(self.up(self.norm(x)))))


def training(jit, keep, steps=3, layers=6, width=16, rows=96):
    """Losses and parameters of a deep model, and the step."""
    gf.manual_seed(3)
    model = nn.ModuleList([Block(width) for _ in range(layers)])
    opt = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

    def step(x):
        opt.zero_grad()
        for block in model:
            x = block(x) if keep else checkpoint(block, x, use_reentrant=False)
        loss = (x * x).mean()
        loss.backward()
        opt.step()
        return loss

    step = jit(step)
    x = ramp(rows, width)
    losses = [step(x).item() for _ in range(steps)]
    return losses, [p.detach().numpy() for p in model.parameters()], step


def test_the_same_numbers_with_less_memory():
    runs = {}
    for keep in (True, False):
        for jit in (lambda f: f, gf.compile):
            runs[keep, jit is gf.compile] = training(jit, keep)
    losses, parameters, _ = runs[True, False]
    assert losses[-1] < losses[0]
    for found, values, _ in runs.values():
        np.testing.assert_allclose(found, losses, rtol=1e-5)
        for a, b in zip(values, parameters, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    # Eager numbers are the very same: nothing is computed in another order.
    assert runs[False, False][0] == losses
    kept, again = (runs[k, True][2].explain().memory.arena for k in (True, False))
    assert again < kept / 2


def test_a_step_without_checks_updates_weights_as_soon_as_it_can():
    """Gradients of all layers do not wait for the end: there is nothing that can fail."""
    _, _, small = training(gf.compile, False, 1, layers=4)
    _, _, large = training(gf.compile, False, 1, layers=8)
    a, b = (step.explain().memory.arena for step in (small, large))
    assert b - a <= 4 * 2 * 96 * 16 * 4  # an input a layer (and a mask), not its hidden values


def test_gradients_of_all_that_the_function_reaches():
    outer = nn.Parameter(ramp(3, 3))

    def program(jit):
        def step(x):
            inner = outer * 2  # reached by closure, with a history of its own

            def part(x, y, factor, scale=1.0):
                return {"sum": x @ inner + y, "rest": (gf.tanh(x @ outer) * factor, scale)}

            made = checkpoint(part, x, y, gf.tensor([1, 2, 3]), scale=2.0)
            loss = (made["sum"].square() + made["rest"][0]).sum() * made["rest"][1]
            return gf.autograd.grad(loss, [outer, x, y])

        x, y = (ramp(4, 3, offset=o).requires_grad_() for o in (0.0, 0.4))
        plain = (x @ (outer * 2) + y).square() + gf.tanh(x @ outer) * gf.tensor([1, 2, 3])
        expected = gf.autograd.grad(plain.sum() * 2.0, [outer, x, y])
        found = jit(step)(x)
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
        return found

    agree(program, rtol=1e-5, atol=1e-5)


def test_gradients_of_gradients():
    x = ramp(5).requires_grad_()

    def twice(function):
        (first,) = gf.autograd.grad(function(x).sum(), x, create_graph=True)
        return gf.autograd.grad(first.square().sum(), x)[0]

    def cube(x):
        return gf.sin(x) * x * x

    np.testing.assert_allclose(twice(lambda x: checkpoint(cube, x)), twice(cube), rtol=1e-5)


def test_autocast_is_that_of_the_first_run():
    layer, seen = nn.Linear(3, 3), []

    def part(x):
        out = layer(x)
        seen.append(out.dtype)
        return out + layer(out)

    grads = []
    for form in (lambda x: checkpoint(part, x), part):
        layer.zero_grad()
        with gf.autocast("cpu"):
            out = form(ramp(2, 3))
        out.float().sum().backward()
        grads.append(layer.weight.grad.numpy())
    assert set(seen) == {gf.bfloat16} and len(seen) == 3
    np.testing.assert_allclose(grads[0], grads[1], rtol=2e-2)


def test_sequences():
    gf.manual_seed(0)
    model = nn.Sequential(*[nn.Linear(4, 4), nn.Tanh()] * 3)
    x = ramp(2, 4).requires_grad_()
    runs = []
    original = model[0].forward
    model[0].forward = lambda value: runs.append(1) or original(value)
    made = checkpoint_sequential(model, 3, x, use_reentrant=False)
    (found,) = gf.autograd.grad(made.sum(), x)
    assert len(runs) == 2 * 2 + 1  # the last segment is kept
    np.testing.assert_allclose(found, gf.autograd.grad(model(x).sum(), x)[0], rtol=1e-6)
    with pytest.raises(gf.GraphFlowError, match="6 modules cannot be cut into 7"):
        checkpoint_sequential(model, 7, x)


def test_contexts_and_no_gradients():
    entered = []

    class Noted:
        def __init__(self, name):
            self.name = name

        def __enter__(self):
            entered.append(self.name)

        def __exit__(self, *exc):
            pass

    x = ramp(3).requires_grad_()
    checkpoint(gf.sin, x, context_fn=lambda: (Noted("first"), Noted("again"))).sum().backward()
    assert entered == ["first", "again"]
    with gf.no_grad():
        assert not checkpoint(gf.sin, x).requires_grad
    assert not checkpoint(gf.sin, ramp(3)).requires_grad


def test_what_has_changed_or_gone():
    x = ramp(3).requires_grad_()
    made = checkpoint(gf.sin, x).sum()
    made.backward()
    with pytest.raises(gf.GraphFlowError, match="second time"):
        made.backward()
    base = x * 1
    made = checkpoint(gf.sin, base).sum()
    with gf.no_grad():
        base.mul_(2)
    with pytest.raises(gf.GraphFlowError, match="in-place"):
        made.backward()


class Counted(nn.Module):
    """Writes to buffers in a part that is computed again, and in a hook of the backward pass."""

    def __init__(self):
        super().__init__()
        layers = nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Tanh()
        self.part, self.last = nn.Sequential(*layers), nn.Linear(5, 2)
        self.register_buffer("calls", gf.zeros(()))
        self.register_buffer("slope", gf.zeros(()))
        self.last.register_full_backward_hook(lambda layer, into, out: self.noted(out[0]))

    def noted(self, ct):
        self.slope.mul_(0.5).add_(ct.norm())
        self.calls.add_(100)

    def counted(self, x):
        self.calls.mul_(2).add_(1)
        return self.part(x)

    def forward(self, x):
        return self.last(checkpoint(self.counted, x) * 2)


def test_buffers_are_written_again_where_a_compiled_part_is():
    gf.manual_seed(3)
    eager = Counted().double()
    made = copy.deepcopy(eager)
    made.last._backward_hooks.clear()
    made.last.register_full_backward_hook(lambda layer, into, out: made.noted(out[0]))
    compiled = gf.compile(made)
    rng = np.random.default_rng(4)
    for shape in ((6, 4), (6, 4), (3, 4)):
        x, y = (gf.tensor(rng.standard_normal(shape)) for _ in range(2))
        for call, module in ((eager, eager), (compiled, made)):
            module.zero_grad()
            first, second = call(x).square().sum(), call(y).square().sum()
            first.backward(retain_graph=True)  # after the second call: from what that left
            second.backward()
            first.backward()
        for name, value in eager.state_dict().items():
            np.testing.assert_allclose(made.state_dict()[name], value, rtol=1e-12, err_msg=name)
        for ours, theirs in zip(made.parameters(), eager.parameters(), strict=True):
            np.testing.assert_allclose(ours.grad, theirs.grad, rtol=1e-9, atol=1e-12)
    assert eager.calls.item() > 1000


def test_a_backward_pass_outside_writes_to_no_argument():
    def summed(x, total):
        def part(x):
            total.add_(x.detach().sum())
            return gf.tanh(x)

        return checkpoint(part, x).sum()

    compiled = gf.compile(summed)
    with pytest.raises(gf.TraceError, match="writes to an argument"):
        compiled(gf.ones(3, requires_grad=True), gf.zeros(()))
