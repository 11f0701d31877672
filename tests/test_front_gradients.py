"""Gradients in and around compiled functions, as they are eagerly."""

import numpy as np
import pytest

import graphflow as gf
from graphflow import nn, optim
from tests.front import agree, linear, numbers, ramp, training_step


def test_gradients_of_a_step_that_updates_refuse_to_be_read():
    model = linear()
    step = training_step(model, optim.SGD(model.parameters(), lr=0.1), gf.compile)
    step(ramp(5, 4))
    for parameter in model.parameters():
        with pytest.raises(gf.GraphFlowError, match="keep_grads=True"):
            _ = parameter.grad
    model.zero_grad()
    assert model.weight.grad is None
    (model(ramp(5, 4)) ** 2).sum().backward()
    fresh = model.weight.grad.clone()
    step(ramp(5, 4))
    with pytest.raises(gf.GraphFlowError, match="keep_grads=True"):
        _ = model.weight.grad
    assert fresh.shape == (3, 4)


def test_keep_grads_keeps_them_right():
    eager, model = linear(), linear()
    plain = training_step(eager, optim.SGD(eager.parameters(), lr=0.1), lambda f: f)
    kept = training_step(model, optim.SGD(model.parameters(), lr=0.1), gf.compile, keep_grads=True)
    for i in range(3):
        x = ramp(5, 4, offset=0.1 * i)
        plain(x)
        kept(x)
        for a, b in zip(eager.parameters(), model.parameters()):
            np.testing.assert_allclose(b.grad.numpy(), a.grad.numpy(), rtol=1e-5, atol=1e-6)


def test_gradients_read_inside_the_step_are_results():
    def program(jit):
        model = linear()
        opt = optim.SGD(model.parameters(), lr=0.1)

        def step(x):
            opt.zero_grad()
            loss = model(x).pow(2).sum()
            loss.backward()
            norm = sum(p.grad.pow(2).sum() for p in model.parameters()).sqrt()
            opt.step()
            return loss, norm, model.bias.grad

        step = jit(step)
        return [step(ramp(5, 4)) for _ in range(3)]

    agree(program)


@pytest.mark.parametrize("reset", ["none", "zero"])
def test_accumulation_over_calls(reset):
    def program(jit):
        model = linear()
        opt = optim.SGD(model.parameters(), lr=0.1)

        @jit
        def forward_backward(x):
            loss = model(x).pow(2).mean()
            loss.backward()
            return loss

        results = []
        for _ in range(2):
            for i in range(3):
                results.append(forward_backward(ramp(2, 4, offset=0.2 * i)))
                results.append(model.weight.grad.clone())
            opt.step()
            opt.zero_grad(set_to_none=reset == "none")
        return [*results, *model.parameters()]

    agree(program)


def test_an_accumulated_gradient_is_used_by_a_compiled_step():
    def program(jit):
        model = linear()
        opt = optim.SGD(model.parameters(), lr=0.1)

        @jit
        def update():
            opt.step()
            opt.zero_grad()

        @jit
        def accumulate(x):
            model(x).pow(2).mean().backward()

        for _ in range(2):
            for _ in range(2):
                accumulate(ramp(2, 4))
            update()
        assert model.weight.grad is None
        return list(model.parameters())

    agree(program)


def test_a_gradient_eager_code_made_is_added_to():
    def program(jit):
        w = ramp(4).requires_grad_()
        (w * w).sum().backward()

        @jit
        def step(x):
            (w * x).sum().backward()

        step(ramp(4, offset=1.0))
        step(ramp(4, offset=2.0))
        (w**3).sum().backward()
        step(ramp(4))
        return w.grad

    agree(program)


def test_frozen_and_unused_parameters_have_no_gradient():
    def program(jit):
        used, unused, frozen = linear(), linear(), linear()
        frozen.requires_grad_(False)
        opt = optim.Adam([*used.parameters(), *unused.parameters(), *frozen.parameters()], lr=0.1)

        @jit
        def step(x):
            opt.zero_grad()
            loss = (used(x) * frozen(x)).sum()
            loss.backward()
            opt.step()
            return loss

        losses = [step(ramp(2, 4)) for _ in range(2)]
        assert unused.weight.grad is None and frozen.weight.grad is None
        return [*losses, used.weight, unused.weight, frozen.weight]

    agree(program)


def test_gradient_of_an_argument():
    def program(jit):
        @jit
        def f(x):
            y = (x * x).sum()
            y.backward()
            return y.detach()

        x = ramp(3).requires_grad_()
        f(x)
        f(x)
        return x.grad

    agree(program)


def test_compiled_forward_with_backward_outside():
    def program(jit):
        model = nn.Sequential(linear(4, 4), nn.Tanh(), linear(4, 2))
        forward = jit(model)
        x = ramp(3, 4).requires_grad_()
        results = []
        for _ in range(3):
            out = forward(x)
            (out.pow(2).sum() + forward(x * 2).sum()).backward()
            results += [out, x.grad.clone(), model[0].weight.grad.clone()]
            with gf.no_grad():
                for p in model.parameters():
                    p.sub_(p.grad * 0.1)
            model.zero_grad()
            x.grad = None
        return results

    agree(program, rtol=1e-5)


def test_compiled_forward_with_several_results():
    def program(jit):
        w = ramp(3).requires_grad_()
        f = jit(lambda x: (w * x, gf.exp(w), x + 1))
        a, b, c = f(ramp(3))
        assert a.requires_grad and b.requires_grad and not c.requires_grad
        a.sum().backward(retain_graph=True)
        first = w.grad.clone()
        w.grad = None
        (a * b).sum().backward()
        return [first, w.grad]

    agree(program)


def test_saved_values_changed_before_backward_are_noticed():
    w = ramp(3).requires_grad_()
    forward = gf.compile(lambda x: w * x)
    out = forward(ramp(3))
    with gf.no_grad():
        w.mul_(2)
    out.sum().backward()  # the gradient needs x, not w
    x = ramp(3)
    out = forward(x)
    x.mul_(3)
    with pytest.raises(gf.GraphFlowError, match="in-place"):
        out.sum().backward()


def test_backward_twice_needs_retain_graph():
    w = ramp(3).requires_grad_()
    for f in (lambda: (w * w).sum(), gf.compile(lambda: (w * w).sum())):
        out = f()
        out.backward()
        with pytest.raises(gf.GraphFlowError, match="retain_graph=True"):
            out.backward()


def test_hooks_on_leaves_results_and_modules():
    def program(jit):
        model = linear()
        model.weight.register_hook(lambda g: g * 0.5)
        model.register_forward_hook(lambda m, args, out: out * 2)
        handle = model.register_forward_pre_hook(lambda m, args: (args[0] + 1,))

        @jit
        def step(x):
            model.zero_grad()
            out = model(x)
            out.register_hook(lambda g: g + 1)
            out.sum().backward()
            return out

        results = [step(ramp(2, 4)), model.weight.grad.clone()]
        handle.remove()
        results += [step(ramp(2, 4)), model.weight.grad.clone()]
        return results

    agree(program)


class Cube(gf.autograd.Function):
    @staticmethod
    def forward(ctx, x, scale):
        ctx.save_for_backward(x)
        ctx.scale = scale
        return x * x * x * scale

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        return grad * x * x * 3 * ctx.scale * 7, None  # 7: plainly the user's own rule


def test_autograd_function():
    def program(jit):
        w = ramp(3).requires_grad_()

        @jit
        def step(x):
            w.grad = None
            out = Cube.apply(w * x, 2.0)
            out.sum().backward()
            return out

        x = ramp(3, offset=0.5)
        out = step(x)
        expected = 7 * 3 * 2.0 * (w * x) ** 2 * x
        np.testing.assert_allclose(w.grad.numpy(), expected.detach().numpy(), rtol=1e-5)
        return [out, w.grad]

    agree(program)


def test_double_backward_and_gradient_penalty():
    def program(jit):
        model = nn.Sequential(linear(4, 4), nn.Tanh(), linear(4, 1))
        opt = optim.SGD(model.parameters(), lr=0.05)

        @jit
        def step(x):
            x = x.detach().requires_grad_()
            opt.zero_grad()
            (g,) = gf.autograd.grad(model(x).sum(), x, create_graph=True)
            loss = (g.norm(dim=1) - 1).pow(2).mean()
            loss.backward()
            opt.step()
            return loss

        return [step(ramp(3, 4)) for _ in range(3)] + list(model.parameters())

    agree(program, rtol=1e-4)


def test_retain_grad_and_inputs():
    def program(jit):
        w, v = ramp(3).requires_grad_(), ramp(3, offset=1.0).requires_grad_()

        @jit
        def step():
            w.grad = v.grad = None
            y = w * v
            y.retain_grad()
            (y * y).sum().backward(inputs=[w])
            return y.grad

        got = step()
        assert v.grad is None
        return [got, w.grad]

    agree(program)


def test_value_and_grad_and_grad_of_functions():
    def f(x, y, power):
        return ((x * y) ** power).sum()

    def program(jit):
        x, y = ramp(3), ramp(3, offset=1.5)
        both = jit(gf.value_and_grad(f, argnums=(0, 1)))
        first = jit(gf.grad(f))
        return [both(x, y, 2), first(x, y, 3), jit(gf.grad(f, argnums=1))(x, y, 2)]

    value, dx, dy, *_ = agree(program)
    x, y = ramp(3).numpy(), ramp(3, offset=1.5).numpy()
    np.testing.assert_allclose(value, ((x * y) ** 2).sum(), rtol=1e-6)
    np.testing.assert_allclose(dx, 2 * x * y * y, rtol=1e-5)
    np.testing.assert_allclose(dy, 2 * x * x * y, rtol=1e-5)


def test_gradient_graphs_by_name_and_position():
    w = ramp(3).requires_grad_()
    graph = gf.trace(lambda x, y: ((w * x * y).sum(), x + y), ramp(3), ramp(3))
    for wrt in (["x", "y", "w"], [0, 1, "w"]):
        made = gf.grad(graph, wrt)
        made.verify()
        x, y = ramp(3, offset=0.5), ramp(3, offset=1.0)
        total, plus, *grads = gf.compile(made)(x, y)
        reference = [(w * y), (w * x), (x * y)]
        for a, b in zip([total, plus, *grads], [(w * x * y).sum(), x + y, *reference]):
            np.testing.assert_allclose(numbers(a)[0], numbers(b)[0], rtol=1e-5)


def test_no_grad_and_detach_inside_the_program():
    def program(jit):
        w = ramp(3).requires_grad_()

        @jit
        def step(x):
            w.grad = None
            with gf.no_grad():
                frozen = w * x
            with gf.no_grad(), gf.enable_grad():
                live = w * x
            loss = (live * frozen).sum() + (w.detach() * w).sum()
            loss.backward()
            return frozen, loss

        return [step(ramp(3, offset=0.5)), w.grad]

    agree(program)


def test_two_steps_that_reach_each_others_parameters():
    """A gradient that was not kept is not needed by a step that only adds to it."""

    def run(keep: bool, first: str):
        gf.manual_seed(4)
        made, judge = nn.Linear(3, 2), nn.Linear(2, 1)
        opts = {"made": optim.SGD(made.parameters(), 0.1), "judge": optim.Adam(judge.parameters())}

        def judged(real, noise):
            opts["judge"].zero_grad()
            loss = judge(real).sum() - judge(made(noise).detach()).tanh().sum()
            loss.backward()
            opts["judge"].step()
            return loss

        def improved(real, noise):
            opts["made"].zero_grad()
            loss = judge(made(noise)).tanh().sum()
            loss.backward()  # also into the judge's gradients, which nobody reads
            opts["made"].step()
            return loss

        steps = [gf.compile(f, keep_grads=keep) for f in (judged, improved)]
        order = steps if first == "judged" else steps[::-1]
        batch = gf.randn(4, 2), gf.randn(4, 3)
        losses = [step(*batch).item() for _ in range(4) for step in order]
        return losses, steps, judge, opts["judge"]

    for first in ("judged", "improved"):
        kept, *_ = run(True, first)
        losses, steps, judge, opt = run(False, first)
        assert losses == kept
        assert len(steps[0].programs) == 1
        assert len(steps[1].programs) == (1 if first == "judged" else 2)
        updated = {node.attrs["name"] for node, _ in steps[1].latest.program.graph.updates}
        assert not any("judge" in name and "grad" in name for name in updated), updated
        with pytest.raises(gf.GraphFlowError, match="keep_grads=True"):
            _ = judge.weight.grad
        judge.weight.sum().backward()  # outside of any program, too
        with pytest.raises(gf.GraphFlowError, match="keep_grads=True"):
            opt.step()
        opt.zero_grad(set_to_none=False)
        assert judge.weight.grad.tolist() == [[0.0, 0.0]]
        judge.weight.sum().backward()
        assert judge.weight.grad.tolist() == [[1.0, 1.0]]


def test_a_result_whose_history_was_used_up_inside_is_a_plain_tensor():
    w = gf.tensor([[1.0, -2.0], [0.5, 3.0]], requires_grad=True)

    @gf.compile
    def outer(x):
        y = gf.tanh(x @ w)
        (slope,) = gf.autograd.grad(y.sum(), w)
        return 2 * y, slope

    x = ramp(3, 2)
    for _ in range(2):
        y, slope = outer(x)
        expected = np.tanh(x.numpy() @ w.detach().numpy())
        np.testing.assert_allclose(y.numpy(), 2 * expected, rtol=1e-5)
        np.testing.assert_allclose(slope.numpy(), x.numpy().T @ (1 - expected**2), rtol=1e-4)


def test_grad_takes_pytorchs_arguments_in_pytorchs_order() -> None:
    x, y, unused = (
        gf.tensor(values, dtype=gf.float64, requires_grad=True)
        for values in ([1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [7.0])
    )
    out = x * x * y
    ones = gf.ones(3, dtype=gf.float64)
    (g,) = gf.autograd.grad(out, x, ones, True, True, True)
    assert g.requires_grad and g.tolist() == [8.0, 20.0, 36.0]
    with pytest.raises(RuntimeError, match="not used"):  # the sixth is not allow_unused
        gf.autograd.grad(out, unused, ones, True, True, True)
    with pytest.raises(ValueError, match="only_inputs=False"):
        gf.autograd.grad(out, x, ones, only_inputs=False)
    rows = gf.eye(3, dtype=gf.float64)
    for run in (lambda f: f, gf.compile):
        gx, gy, none = run(lambda x, y: gf.autograd.grad(
            x * x * y, (x, y, unused), rows, is_grads_batched=True, allow_unused=True
        ))(x, y)  # fmt: skip
        assert none is None and gx.tolist() == np.diag([8.0, 20.0, 36.0]).tolist()
        assert gy.tolist() == np.diag([1.0, 4.0, 9.0]).tolist()
    (same,) = gf.autograd.grad(out, y, gf.ones(2, 3).double(), is_grads_batched=True)
    assert same.tolist() == [[1.0, 4.0, 9.0]] * 2
    with pytest.raises(ValueError, match="needs grad_outputs"):
        gf.autograd.grad(out, x, is_grads_batched=True)


def test_what_cannot_be_a_gradient_is_refused() -> None:
    x = gf.ones(2).requires_grad_()
    for wrong in (3, 2.0, [1.0, 2.0], np.ones(2, np.float32)):
        with pytest.raises(TypeError, match="expected to be a Tensor or None but got"):
            x.grad = wrong
    for tensor in (x, gf.ones(3), gf.ones(2, dtype=gf.float64)):
        with pytest.raises(gf.GraphFlowError):
            x.grad = tensor
    assert x.grad is None
    x.grad = gf.full((2,), 3.0)
    assert x.grad.tolist() == [3, 3]


def test_gradients_where_arguments_show_the_same_memory():
    """As tokens and the next ones do: the backward pass reads what the forward pass was given."""
    data = gf.tensor(np.cos(np.arange(15.0)).reshape(3, 5))
    w = gf.ones(4, dtype=gf.float64, requires_grad=True)
    product = gf.compile(lambda x, y: (x * w * y).sum())
    for x, y in ((data[:, :-1], data[:, 1:]), (data[:2, :4], data[1:, 1:])):
        w.grad = None
        product(x, y).backward()
        np.testing.assert_allclose(w.grad.numpy(), (x.numpy() * y.numpy()).sum(0))


@pytest.mark.parametrize("inside", [False, True])
def test_gradients_go_to_the_tensor_that_was_differentiated(inside):
    """Not to another argument, or to the detached one, that shows the same memory."""
    w = gf.tensor([1.0, 2.0, 3.0], requires_grad=True)
    base = gf.tensor([[1.0, 2.0, 4.0]])
    x, y = base[:, :-1].detach().requires_grad_(), base[:, 1:].detach().requires_grad_()

    def product(detached, x, y):
        out = (w * detached).sum() + (x**2 * y).sum()
        return out.backward() if inside else out

    compiled = gf.compile(product, keep_grads=True)
    made = compiled(w.detach(), x, y)
    if not inside:
        made.backward()
    np.testing.assert_array_equal(w.grad.numpy(), [1.0, 2.0, 3.0])
    np.testing.assert_array_equal(x.grad.numpy(), [[4.0, 16.0]])
    np.testing.assert_array_equal(y.grad.numpy(), [[1.0, 4.0]])
