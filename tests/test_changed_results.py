"""Results that are changed in place after their gradient rule has saved them."""

import numpy as np
import pytest

import graphflow as gf
from graphflow.dispatch import apply, apply_several
from graphflow.errors import GraphFlowError
from graphflow.ir.op import NON_DIFFERENTIABLE, all_ops
from graphflow.ir.types import TupleType
from tests.op_cases import cases
from tests.test_saved_tensors import Scaled

OPS = [op for op in all_ops() if op.vjp is not NON_DIFFERENTIABLE]


def gradients(case, change):
    """Of one operation whose results go through ``change``."""
    several = isinstance(case.graph().outputs[0].type, TupleType)
    tensors = [gf.tensor(a) for a in case.arrays]
    chosen = [t.requires_grad_() for t in tensors if t.is_floating_point()]
    made = (apply_several if several else apply)(case.op, *tensors, **case.attrs)
    outs = [change(o) for o in (made if several else [made]) if o.requires_grad]
    cts = [gf.ones_like(o) for o in outs]
    return [g.numpy() for g in gf.autograd.grad(outs, chosen, cts, materialize_grads=True)]


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
def test_the_gradient_is_that_of_the_value_before(op):
    for case in list(cases(op, ("f64",)))[:2]:
        expected = gradients(case, lambda out: out * 3 + 1)
        found = gradients(case, lambda out: out.mul_(3).add_(1))
        for a, b in zip(expected, found, strict=True):
            np.testing.assert_array_equal(a, b, err_msg=case.label)


def softmax_and_changes(x, w):
    """Saved results that are changed: themselves, through a view, and by setting elements."""
    y = (x / w).softmax(1)
    y.mul_(w)
    z = x.exp()
    z[0].mul_(w[0])
    z[1, 0] = 5.0
    r = x.relu()
    r += z
    return (y * z * r).sum()


def softmax_and_no_changes(x, w):
    y = (x / w).softmax(1) * w
    z = x.exp()
    z = gf.stack([z[0] * w[0], gf.cat([gf.full((1,), 5.0).double(), z[1, 1:]])])
    return (y * z * (x.relu() + z)).sum()


def test_views_and_elements_eager_and_compiled():
    x, w = (gf.tensor(np.random.default_rng(3).uniform(0.5, 2, (2, 3))) for _ in range(2))
    x, w = x.requires_grad_(), w.clone().requires_grad_()
    expected = gf.autograd.grad(softmax_and_no_changes(x, w), (x, w))
    inside = gf.compile(lambda x, w: gf.autograd.grad(softmax_and_changes(x, w), (x, w)))
    outside = gf.compile(softmax_and_changes)
    for found in (
        gf.autograd.grad(softmax_and_changes(x, w), (x, w)),
        inside(x, w),
        gf.autograd.grad(outside(x, w), (x, w)),
    ):
        for a, b in zip(expected, found, strict=True):
            np.testing.assert_allclose(a.detach(), b.detach(), rtol=1e-12)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.exp(),
        lambda x: Scaled.apply(x, gf.tensor([1.0, 0.5])),
        gf.compile(lambda x: x.exp()),
        gf.compile(lambda x: (x.exp().reshape(2, 1), x.exp())[0]),
    ],
    ids=["operation", "function", "compiled", "compiled view"],
)
def test_a_change_that_is_recorded_is_fine_and_one_that_is_not_is_refused(function):
    x = gf.tensor([1.0, -2.0], requires_grad=True)
    (expected,) = gf.autograd.grad((function(x) * 3).sum(), x)
    (found,) = gf.autograd.grad(function(x).mul_(3).sum(), x)
    np.testing.assert_array_equal(expected.numpy(), found.numpy())
    for change in (lambda y: y.detach().mul_(3), gf.no_grad()(lambda y: y[0].mul_(3))):
        y = function(x)
        change(y)
        with pytest.raises(GraphFlowError, match="modified by an in-place operation"):
            y.sum().backward()
    y = x + 1  # its value is not needed
    with gf.no_grad():
        y.mul_(3)
    y.sum().backward()


@pytest.mark.parametrize("call", [lambda f: f, gf.compile])
def test_arguments_take_the_history_of_what_is_written_to_them(call):
    """Each call's own argument has it, also where it is written to twice; others have none."""
    w = gf.ones(3, dtype=gf.float64, requires_grad=True)

    def write(x):
        x[:, 2:] = w.mean() * 5
        x[:, :1].add_(1)
        return x * 2

    written = call(write)
    for start in (1.0, 3.0):
        x = gf.full((4, 5), start, dtype=gf.float64)
        w.grad = None
        out = written(x)
        assert x.requires_grad and not x.is_leaf
        (out.sum() + x.sum()).backward()
        np.testing.assert_allclose(w.grad.numpy(), np.full(3, (2 + 1) * 12 * 5 / 3))
        np.testing.assert_array_equal(x.detach().numpy()[1], [start + 1, start, 5.0, 5.0, 5.0])


def test_memory_outside_keeps_its_history_where_a_trace_wrote_to_it():
    """What is written to in a compiled step is a leaf after it as before."""
    w = gf.ones(3, requires_grad=True)
    buffer, x = gf.zeros(3), gf.ones(3)
    row = buffer[1:]

    @gf.compile
    def step(x):
        w.grad = None
        buffer.mul_(0.5).add_(w)
        x.add_(w)
        (buffer + x).sum().backward()
        return w.grad

    np.testing.assert_array_equal(step(x).numpy(), np.full(3, 2.0))
    assert not (buffer.requires_grad or row.requires_grad or x.requires_grad)
    np.testing.assert_array_equal(step(x).numpy(), np.full(3, 2.0))
    np.testing.assert_array_equal(row.numpy(), np.full(2, 1.5))
