"""The surface of autograd: modes, grad, custom functions, hooks, checks, Jacobians."""

from __future__ import annotations

import gc
import weakref
from importlib import import_module
from typing import Any

import numpy as np
import pytest

import graphflow as gf
from graphflow.autograd import Function, functional, gradcheck, gradgradcheck
from graphflow.autograd.function import once_differentiable


def leaf(*values: float) -> gf.Tensor:
    return gf.tensor(values, dtype=gf.float64, requires_grad=True)


# ---- modes ---------------------------------------------------------------------------


def test_modes_as_contexts_statements_and_decorators() -> None:
    x = leaf(1.0)
    with gf.inference_mode():
        assert not (x * 2).requires_grad and gf.is_inference_mode_enabled()
        with gf.enable_grad():
            assert (x * 2).requires_grad
        with gf.inference_mode(False):
            assert gf.is_grad_enabled()
    gf.set_grad_enabled(False)
    assert not (x * 2).requires_grad
    gf.set_grad_enabled(True)
    with gf.set_grad_enabled(False):
        assert not gf.is_grad_enabled()
    assert gf.is_grad_enabled()

    class Model:
        @gf.no_grad()
        def plain(self) -> bool:
            return gf.is_grad_enabled()

        @gf.no_grad
        def bare(self) -> bool:
            return gf.is_grad_enabled()

        @gf.set_grad_enabled(False)
        def off(self) -> bool:
            return gf.is_grad_enabled()

        @gf.inference_mode
        def inference(self) -> bool:
            return gf.is_grad_enabled()

    model = Model()
    assert gf.is_grad_enabled()
    assert not any((model.plain(), model.bare(), model.off(), model.inference()))
    assert gf.enable_grad()(gf.is_grad_enabled)() and gf.is_grad_enabled()


def test_a_decorated_generator_keeps_its_mode_to_itself() -> None:
    @gf.no_grad()
    def numbers() -> Any:
        got = yield gf.is_grad_enabled()
        yield got, gf.is_grad_enabled()

    steps = numbers()
    assert next(steps) is False and gf.is_grad_enabled()
    assert steps.send(7) == (7, False) and gf.is_grad_enabled()
    assert list(steps) == []


# ---- grad and backward ---------------------------------------------------------------


def test_grad_of_several_outputs_by_several_inputs() -> None:
    x, y, z = leaf(1.0, 2.0), leaf(3.0, 4.0), leaf(5.0)
    outs = (x * y, x.square().sum())
    ones = gf.ones(2, dtype=gf.float64)
    gx, gy = gf.autograd.grad(outs, (x, y), (ones, None), retain_graph=True)
    assert gx.tolist() == [5.0, 8.0] and gy.tolist() == [1.0, 2.0]
    with pytest.raises(RuntimeError, match="not used"):
        gf.autograd.grad(outs, (x, z), (ones, None), retain_graph=True)
    assert gf.autograd.grad(outs, z, (ones, None), True, allow_unused=True) == (None,)
    (zero,) = gf.autograd.grad(outs, z, (ones, None), True, materialize_grads=True)
    assert zero.tolist() == [0.0]
    with pytest.raises(RuntimeError, match="gradients"):
        gf.autograd.grad(outs, x, (ones,))


def test_backward_into_chosen_inputs() -> None:
    x, y = leaf(2.0), leaf(3.0)
    inner = x * y
    gf.autograd.backward(inner.square(), inputs=[x, inner])
    assert x.grad.item() == 36.0 and y.grad is None and inner.grad.item() == 12.0
    gf.autograd.backward([x * 1, y * 2], [gf.ones(1).double(), None])
    assert x.grad.item() == 37.0 and y.grad.item() == 2.0


def test_second_order_compiled() -> None:
    def step(x: Any) -> Any:
        (first,) = gf.autograd.grad((x.sin() * x).sum(), x, create_graph=True)
        (second,) = gf.autograd.grad(first.square().sum(), x)
        return first, second

    x = leaf(0.3, 1.7)
    for one, other in zip(gf.compile(step)(x), step(x), strict=True):
        np.testing.assert_allclose(one.detach().numpy(), other.detach().numpy(), 1e-12)


def test_a_compiled_view_of_an_argument_keeps_its_history() -> None:
    x = gf.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    turned = gf.compile(lambda x: x.t())(x)
    (turned * gf.tensor([[1.0, 2.0], [3.0, 4.0]])).sum().backward()
    assert x.grad.tolist() == [[1.0, 3.0], [2.0, 4.0]]
    assert not gf.compile(lambda x: x.detach().t())(x).requires_grad


def test_hooks() -> None:
    x = leaf(1.0, 2.0)
    seen: list[Any] = []
    y = x * 3
    y.retain_grad()
    handle = y.register_hook(lambda g: g * 2)
    after = x.register_post_accumulate_grad_hook(lambda t: seen.append(t.grad.tolist()))
    (y * 1).sum().backward()
    assert y.retains_grad and y.grad.tolist() == [2.0, 2.0]
    assert x.grad.tolist() == [6.0, 6.0] and seen == [[6.0, 6.0]]
    handle.remove(), after.remove()
    (x * 1).sum().backward()
    assert len(seen) == 1
    with pytest.raises(RuntimeError, match="leaf"):
        y.register_post_accumulate_grad_hook(print)
    with pytest.raises(RuntimeError, match="require grad"):
        gf.ones(1).retain_grad()
    assert repr(y.grad_fn) == "<MulBackward0>" and len(y.grad_fn.next_functions) == 2


# ---- custom functions ----------------------------------------------------------------


class DivMod(Function):
    """Two results; the second, a step function, carries no gradient."""

    @staticmethod
    def forward(ctx: Any, a: Any, b: Any, scale: float) -> Any:
        ctx.save_for_backward(a, b)
        ctx.scale = scale
        whole = gf.floor(a / b)
        ctx.mark_non_differentiable(whole)
        return a / b * scale, whole

    @staticmethod
    def backward(ctx: Any, ct: Any, unused: Any) -> Any:
        a, b = ctx.saved_tensors
        assert ctx.needs_input_grad == (True, True, False)
        return ct / b * ctx.scale, -ct * a / (b * b) * ctx.scale, None


def test_several_results() -> None:
    a, b = leaf(7.0, 5.0), leaf(2.0, 3.0)
    quotient, whole = DivMod.apply(a, b, 2.0)
    assert quotient.requires_grad and not whole.requires_grad
    assert "DivMod" in quotient.grad_fn.name()
    assert gradcheck(lambda a, b: DivMod.apply(a, b, 2.0)[0], (a, b))
    assert gradgradcheck(lambda a, b: DivMod.apply(a, b, 2.0)[0], (a, b))
    compiled = gf.compile(lambda a, b: gf.autograd.grad(DivMod.apply(a, b, 2.0)[0].sum(), (a, b)))
    assert compiled(a, b)[0].tolist() == [1.0, 2.0 / 3.0]


class Exp(Function):
    """Saves its own result, through ``setup_context``."""

    @staticmethod
    def forward(x: Any) -> Any:
        return x.exp()

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(output)

    @staticmethod
    def backward(ctx: Any, ct: Any) -> Any:
        return ct * ctx.saved_tensors[0]


def test_saved_results_differentiate_again_and_leave_no_cycle() -> None:
    x = leaf(0.5, 1.0)
    assert gradgradcheck(Exp.apply, x)
    gc.disable()
    try:
        out = Exp.apply(x)
        out.sum().backward()
        watched = weakref.ref(out)
        del out
        assert watched() is None
    finally:
        gc.enable()
    with pytest.raises(RuntimeError, match="second time"):
        out = Exp.apply(x).sum()
        out.backward(), out.backward()


def test_saved_tensors_are_watched() -> None:
    x = leaf(1.0, 2.0)
    y = x * 1
    out = DivMod.apply(y, y + 1, 1.0)[0]
    y.add_(1)
    with pytest.raises(RuntimeError, match="in-place"):
        out.sum().backward()


def test_materialised_gradients_dirty_inputs_and_identities() -> None:
    class Two(Function):
        @staticmethod
        def forward(ctx: Any, x: Any, zeros: bool) -> Any:
            ctx.set_materialize_grads(zeros)
            return x * 2, x * 3

        @staticmethod
        def backward(ctx: Any, a: Any, b: Any) -> Any:
            seen.append(b if b is None else b.tolist())
            return a * 2, None

    class Double(Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            ctx.mark_dirty(x)
            return x.mul_(2)

        @staticmethod
        def backward(ctx: Any, ct: Any) -> Any:
            return ct * 2

    class Same(Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            return x

        @staticmethod
        def backward(ctx: Any, ct: Any) -> Any:
            return ct * 5

    seen: list[Any] = []
    x = leaf(1.0)
    for zeros in (True, False):
        Two.apply(x, zeros)[0].sum().backward()
    assert seen == [[0.0], None] and x.grad.item() == 4.0
    y = x * 1
    assert Double.apply(y) is y and y.item() == 2.0
    (g,) = gf.autograd.grad(y * 3, x)
    assert g.item() == 6.0
    same = Same.apply(x)
    assert same is not x and gf.autograd.grad(same, x)[0].item() == 5.0


def test_wrong_backwards() -> None:
    def made(answer: Any, once: bool = False) -> Any:
        class Wrong(Function):
            @staticmethod
            def forward(ctx: Any, x: Any, k: int) -> Any:
                return x * k

            backward = staticmethod((once_differentiable if once else lambda f: f)(answer))

        return Wrong

    x = leaf(1.0, 2.0)
    for answer, error in (
        (lambda ctx, ct: ct, "incorrect number"),
        (lambda ctx, ct: (ct.sum().reshape(1, 1, 1).expand(3, 1, 4), None), "invalid gradient"),
        (lambda ctx, ct: (ct, ct), "no tensor"),
    ):
        with pytest.raises(RuntimeError, match=error):
            made(answer).apply(x, 2).sum().backward()
    once = made(lambda ctx, ct: (ct * 2, None), once=True)
    (g,) = gf.autograd.grad((once.apply(x, 2) ** 2).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        g.sum().backward()
    with pytest.raises(TypeError, match="save tensors"):
        DivMod.apply.__func__(type("S", (DivMod,), {
            "forward": staticmethod(lambda ctx, x: ctx.save_for_backward(3))
        }), x)  # fmt: skip


# ---- checks and Jacobians ------------------------------------------------------------


def test_the_module_of_gradcheck_stands_for_the_function() -> None:
    module = import_module("graphflow.autograd.gradcheck")  # is then called so in its package
    assert module(gf.exp, gf.ones(2, dtype=gf.float64, requires_grad=True))


def test_gradcheck_finds_a_wrong_gradient() -> None:
    class Off(Exp):
        @staticmethod
        def backward(ctx: Any, ct: Any) -> Any:
            return ct * ctx.saved_tensors[0] * 1.01

    x = leaf(0.5, 1.0)
    with pytest.raises(RuntimeError, match="Jacobian mismatch"):
        gradcheck(Off.apply, x)
    assert gradcheck(Off.apply, x, raise_exception=False) is False
    with pytest.raises(ValueError, match="require gradient"):
        gradcheck(Exp.apply, gf.ones(2))


def test_jacobians() -> None:
    a = gf.tensor(np.arange(6.0).reshape(2, 3))
    x, v = gf.tensor([0.5, 1.0, 2.0]).double(), gf.tensor([1.0, -1.0, 2.0]).double()

    def function(x: Any) -> Any:
        return (a @ x).sin()

    slope = np.cos(a.numpy() @ x.numpy())[:, None] * a.numpy()
    np.testing.assert_allclose(functional.jacobian(function, x).numpy(), slope, 1e-12)
    _, product = functional.jvp(function, x, v)
    np.testing.assert_allclose(product.numpy(), slope @ v.numpy(), 1e-12)
    u = gf.tensor([3.0, -2.0]).double()
    np.testing.assert_allclose(functional.vjp(function, x, u)[1].numpy(), u.numpy() @ slope, 1e-12)
    by_x, by_y = functional.jacobian(lambda x, y: x * y, (x, v))
    np.testing.assert_allclose(by_x.numpy(), np.diag(v.numpy()))
    np.testing.assert_allclose(by_y.numpy(), np.diag(x.numpy()))

    def cubes(x: Any) -> Any:
        return (x**3).sum() + x[0] * x[1]

    expected = np.diag(6 * x.numpy()) + np.eye(3)[[1, 0, 2]] * [[1], [1], [0]]
    np.testing.assert_allclose(functional.hessian(cubes, x).numpy(), expected, 1e-12)
    np.testing.assert_allclose(functional.hvp(cubes, x, v)[1].numpy(), expected @ v.numpy(), 1e-12)
    with pytest.raises(RuntimeError, match="single element"):
        functional.hessian(function, x)
    with pytest.raises(RuntimeError, match="independent"):
        functional.jacobian(lambda x: gf.ones(2), x, strict=True)


class Widening(gf.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x * 2

    @staticmethod
    def backward(ctx, ct):
        return ct.double() * 2


@pytest.mark.parametrize("jit", [lambda f: f, gf.compile])
def test_gradients_have_the_dtype_of_what_they_are_of(jit):
    def given(x, ct):
        x = x.clone().requires_grad_()
        (first,) = gf.autograd.grad([x * 2, x * 3], x, [ct, ct.to(x.dtype)])
        (x * 2).backward(ct)
        return first, x.grad

    for dtype, other in (
        (gf.float64, gf.float32),
        (gf.float32, gf.float64),
        (gf.float32, gf.int64),
    ):
        for found, expected in zip(
            jit(given)(gf.ones(3, dtype=dtype), gf.ones(3, dtype=other)), (5, 2)
        ):
            assert found.dtype is dtype and found.tolist() == [expected] * 3

    def returned(x):
        x = x.clone().requires_grad_()
        Widening.apply(x).sum().backward()
        return x.grad

    assert jit(returned)(gf.ones(3)).dtype is gf.float32


def test_gradients_that_do_not_fit_are_refused():
    x = gf.ones(2, requires_grad=True)
    with pytest.raises(gf.GraphFlowError, match="float64 does not fit a tensor"):
        x.grad = gf.ones(2, dtype=gf.float64)
    for hook, words in ((lambda g: g.double(), "dtype"), (lambda g: g[:1], "shape")):
        for leaf in (True, False):
            x = gf.ones(2, requires_grad=True)
            y = x * 2
            (x if leaf else y).register_hook(hook)
            with pytest.raises(gf.GraphFlowError, match=f"a hook changed the {words}"):
                y.sum().backward()


def filled_rows(z):
    out = gf.zeros(3, 4, dtype=z.dtype)
    for k in range(3):
        out[k] = z * k if k < 2 else z.sin()
    return out


def by_views_made_before(z):
    out = gf.zeros(3, 4, dtype=z.dtype)
    turned, middle = out.t(), out.view(-1)[4:8]
    middle.add_(z)
    out[:, 1:3][2] *= z[1:3]
    turned[0].copy_(z[:3])
    return out * 2 + turned.t().exp() + middle


def by_steps_over_a_row(z):
    out = gf.zeros(3, 4, dtype=z.dtype)
    out[0] = z
    for k in range(1, 3):
        row = out[k]
        row += out[k - 1] + z
        row[1:3].mul_(2)
    return out


def history_that_begins_again(z):
    a = z * 2
    gone = a.unsqueeze(0)
    a.zero_()
    kept = a.unsqueeze(0)
    a.sub_(z.sum())
    return gone * kept + a


@pytest.mark.parametrize(
    "function", [filled_rows, by_views_made_before, by_steps_over_a_row, history_that_begins_again]
)
@pytest.mark.parametrize("jit", [lambda f: f, gf.compile])
def test_views_of_memory_without_history_share_the_history_it_comes_to_have(function, jit):
    """``out[0] = z`` and writes through views give ``out``, and all views of it, gradients."""

    def slope(z):
        z = z.clone().requires_grad_()
        made = function(z)
        (made * gf.arange(made.numel()).reshape(made.shape)).sum().backward()
        return made.detach(), z.grad

    z = np.random.default_rng(8).uniform(0.5, 2, 4)
    _, found = jit(slope)(gf.tensor(z))
    for i in range(4):
        moved = []
        for step in (1e-6, -1e-6):
            changed = z.copy()
            changed[i] += step
            made = function(gf.tensor(changed)).numpy()
            moved.append((made * np.arange(made.size).reshape(made.shape)).sum())
        assert found[i].item() == pytest.approx((moved[0] - moved[1]) / 2e-6, rel=1e-6)


def test_views_that_are_gone_are_forgotten():
    x = gf.zeros(4)
    kept = x[:2]
    for _ in range(1000):
        _ = x[1:]
    assert len(x._cell.views) < 100
    x.add_(gf.ones(4, requires_grad=True))
    assert kept.requires_grad and kept.grad_fn is not None


def test_a_view_that_asks_for_a_gradient_is_a_leaf_of_its_own():
    x = gf.zeros(4)
    part = x[:2].requires_grad_()
    x.add_(gf.ones(4, requires_grad=True))
    assert part.is_leaf and part.requires_grad
    with pytest.raises(gf.GraphFlowError, match="a leaf tensor that requires grad"):
        part.mul_(2)


def test_gradients_do_not_share_memory_with_what_users_have() -> None:
    kept = gf.ones(3)

    class Saved(gf.autograd.Function):
        @staticmethod
        def forward(ctx, x, w):
            ctx.save_for_backward(x)
            return (x * w).sum()

        @staticmethod
        def backward(ctx, ct):
            return None, ctx.saved_tensors[0]

    w = gf.ones(3, requires_grad=True)
    Saved.apply(kept, w).backward()
    w.grad.mul_(5)
    hooked = gf.ones(3, requires_grad=True)
    hooked.register_hook(lambda ct: kept)
    (hooked * 2).sum().backward()
    hooked.grad.mul_(7)
    assert kept.tolist() == [1.0] * 3 and w.grad.tolist() == [5.0] * 3
