"""Hooks on saved tensors: gradients stay what they are, and memory is let go of."""

import gc
import threading
import weakref

import numpy as np
import pytest

import graphflow as gf
import graphflow.nn.functional as F
from graphflow import nn
from graphflow.autograd.graph import save_on_cpu, saved_tensors_hooks
from graphflow.dispatch import apply, apply_several
from graphflow.errors import GraphFlowError, TraceError
from graphflow.ir.op import NON_DIFFERENTIABLE, all_ops
from graphflow.ir.types import TupleType
from graphflow.utils.checkpoint import checkpoint
from tests.front import ramp
from tests.op_cases import cases

DIFFERENTIABLE = [op for op in all_ops() if op.vjp is not NON_DIFFERENTIABLE]


class Copies(saved_tensors_hooks):
    """Saves copies in NumPy's hands, and counts."""

    def __init__(self):
        self.packed = self.unpacked = 0

        def pack(tensor):
            assert not gf.is_grad_enabled()
            self.packed += 1
            return tensor.detach().numpy().copy()

        def unpack(array):
            self.unpacked += 1
            return gf.from_numpy(array.copy())

        super().__init__(pack, unpack)


def slope(case, wanted, hooks):
    """Gradients and gradients of those of one operation, by the operands in ``wanted``."""
    several = isinstance(case.graph().outputs[0].type, TupleType)
    run = apply_several if several else apply
    tensors = [gf.tensor(a) for a in case.arrays]
    for i in wanted:
        tensors[i].requires_grad_()
    with hooks:
        made = run(case.op, *tensors, **case.attrs)
    outs = [o for o in (made if several else [made]) if o.requires_grad]
    chosen = [tensors[i] for i in wanted]
    rng, found = case.rng(), []
    for _ in range(2):
        cts = [gf.tensor(rng.uniform(0.5, 1.5, o.shape).astype(o.dtype.numpy)) for o in outs]
        with hooks:
            grads = gf.autograd.grad(outs, chosen, cts, create_graph=True, allow_unused=True)
        found += [None if g is None else g.detach().numpy() for g in grads]
        outs = [g for g in grads if g is not None and g.requires_grad]
        if not outs:
            break
    return found


@pytest.mark.parametrize("op", DIFFERENTIABLE, ids=lambda op: op.name)
def test_every_rule_reads_only_what_was_packed(op):
    for case in [*list(cases(op, ("f64",)))[:2], *list(cases(op, ("c128",)))[:1]]:
        floating = [i for i, a in enumerate(case.arrays) if a.dtype.kind in "fc"]
        for wanted in [floating, *([i] for i in floating if len(floating) > 1)]:
            expected, found = (slope(case, wanted, h) for h in (gf.enable_grad(), Copies()))
            for a, b in zip(expected, found, strict=True):
                np.testing.assert_array_equal(a, b, err_msg=case.label)


def logged():
    """Hooks that keep by reference, and what they have seen: shape and requires_grad."""
    seen = []

    def pack(tensor):
        seen.append((tuple(tensor.shape), tensor.requires_grad))
        return tensor.detach()

    return saved_tensors_hooks(pack, lambda tensor: tensor), seen


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda a, b: a * 3, []),
        (lambda a, b: a + b, []),
        (lambda a, b: a * b, [((2,), False)]),  # b has no gradient: a is not needed
        (lambda a, b: a * a, [((2,), True)] * 2),
        (lambda a, b: a.exp(), [((2,), True)]),  # the result
        (lambda a, b: a.reshape(2, 1).t(), []),
        (lambda a, b: gf.where(b > 0, a, b), [((2,), False)]),  # a mask
    ],
)
def test_what_a_gradient_needs_is_packed(function, expected):
    a, b = gf.tensor([1.0, -2.0], requires_grad=True), gf.tensor([3.0, 4.0])
    hooks, seen = logged()
    with hooks:
        function(a, b).sum().backward()
        with gf.no_grad():
            function(a, b)
    function(a, b)
    assert seen == expected


def test_the_innermost_context_is_asked_and_each_thread_has_its_own():
    a = gf.tensor([1.0, 2.0], requires_grad=True)
    outer, inner = Copies(), Copies()
    with outer:
        with inner, inner:
            a.exp()
        a.exp()
        thread = threading.Thread(target=a.exp)
        thread.start()
        thread.join()
    assert (outer.packed, inner.packed) == (1, 1)
    with pytest.raises(ZeroDivisionError), outer:
        raise ZeroDivisionError
    a.exp()
    assert outer.packed == 1


def test_a_model_trains_to_the_same_bits():
    gf.manual_seed(1)
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.GELU(), nn.Flatten())
    x, y = ramp(4, 2, 5, 5), gf.tensor([0, 1, 2, 3])
    found = []
    for hooks in (gf.enable_grad(), Copies(), save_on_cpu()):
        model.zero_grad()
        with hooks:
            loss = F.cross_entropy(model(x), y)
        loss.backward()
        found.append([p.grad.numpy().copy() for p in model.parameters()])
    for others in found[1:]:
        for a, b in zip(found[0], others, strict=True):
            np.testing.assert_array_equal(a, b)


def test_memory_is_let_go_of():
    a = gf.ones(1000, requires_grad=True)
    with Copies():
        b = a * 2
        memory = weakref.ref(b._cell)
        y = b.exp().sum()
    del b
    gc.collect()
    assert memory() is None
    hooks = Copies()
    with hooks:
        z = a.exp().sum()
    z.backward(retain_graph=True)
    z.backward()
    assert (hooks.packed, hooks.unpacked) == (1, 2)
    with pytest.raises(GraphFlowError, match="second time"):
        z.backward()
    y.backward()
    np.testing.assert_allclose(a.grad.numpy(), 2 * np.e + 2 * np.exp(2), rtol=1e-6)


class Scaled(gf.autograd.Function):
    """``x * y * exp(y)``, which saves an operand and a result."""

    @staticmethod
    def forward(ctx, x, y):
        out = x * y.exp()
        ctx.save_for_backward(x, None, out, y)
        return out

    @staticmethod
    def backward(ctx, ct):
        x, none, out, _ = ctx.saved_tensors
        assert none is None
        return ct * out / x, ct * out


def test_custom_functions_and_checkpoints_pack_what_they_save():
    def values(hooks, function):
        x, y = (gf.tensor(v, requires_grad=True) for v in ([1.0, 2.0], [0.5, -0.5]))
        with hooks:
            out = function(x, (y * 2) if function is inner else y).sum()
        first = gf.autograd.grad(out, (x, y), create_graph=True)
        second = gf.autograd.grad(first[0].sum() + first[1].sum(), (x, y))
        return [g.tolist() for g in (*first, *second)]

    def inner(x, y):
        return checkpoint(lambda a, b: a * b.sin(), x, y, use_reentrant=False)

    for function, packed in ((Scaled.apply, 3), (inner, 2)):
        hooks = Copies()
        assert values(hooks, function) == values(gf.enable_grad(), function)
        assert hooks.packed == packed and hooks.unpacked >= packed


def test_what_hooks_must_not_do():
    a = gf.tensor([1.0, 2.0], requires_grad=True)

    def run(pack, unpack, between=lambda: None):
        b = a * 1
        with saved_tensors_hooks(pack, unpack):
            y = (b * b).sum()
        between(b)
        y.backward()

    def same(x):
        return x

    def change(tensor):
        with gf.no_grad():
            tensor.mul_(2)

    with pytest.raises(TypeError, match="must return a tensor, not int"):
        run(same, lambda x: 3, same)
    with pytest.raises(GraphFlowError, match=r"where .* was packed"):
        run(same, lambda x: x.double(), same)
    with pytest.raises(GraphFlowError, match="changed the tensor"):
        run(lambda x: x.mul_(2), same, same)
    with pytest.raises(GraphFlowError, match="kept by reference"):
        run(lambda x: (x.detach(),), lambda kept: kept[0], change)
    with pytest.raises(TypeError, match="must be callable"):
        saved_tensors_hooks(same, 3)
    run(lambda x: x.clone(), same, change)  # a copy may outlive a change
    np.testing.assert_array_equal(a.grad.numpy(), [2.0, 4.0])


def test_compiled_functions_have_no_hooks():
    a, hooks = gf.tensor([1.0, 2.0], requires_grad=True), Copies()

    @gf.compile
    def inside(x):
        with hooks:
            return x.exp()

    with pytest.raises(TraceError, match="decides what is kept"):
        inside(a)

    double = gf.compile(lambda x: (x.exp() * x).sum())
    with hooks:
        double(a).backward()
        y = a.exp().sum()
    assert hooks.packed == 1

    with pytest.raises(TraceError, match="hooks are called eagerly only"):
        gf.compile(lambda: y.backward())()


@pytest.mark.parametrize("jit", [lambda f: f, gf.compile])
def test_a_hook_on_several_tensors_is_called_once_a_pass(jit):
    register = gf.autograd.graph.register_multi_grad_hook
    u, v, w = (gf.tensor([float(i)], requires_grad=True) for i in (1, 2, 3))
    sums = [gf.zeros(1) for _ in range(3)]
    seen: list[list[bool]] = []
    first: list[str] = []

    def take(gradients):
        seen.append([g is not None for g in gradients])
        for total, g in zip(sums, gradients):
            if g is not None:
                total.add_(g)

    handles = [
        register((u, v, w), take),
        register((u, w), lambda g: first.append("one"), mode="any"),
    ]

    def passes():
        (u * v).sum().backward()
        (u * v * w).sum().backward()

    jit(passes)()
    assert seen == [[True, True, False], [True, True, True]] and first == ["one", "one"]
    assert [s.item() for s in sums] == [2 + 6, 1 + 3, 2]
    for handle in handles:
        handle.remove()
    (u * v).sum().backward()
    assert len(seen) == len(first) == 2
    with pytest.raises(ValueError, match="mode is 'all' or 'any'"):
        register((u,), take, mode="some")


def test_a_pass_that_failed_and_one_within_another_leave_hooks_on_several_tensors_alone():
    u, v = (gf.tensor([float(i)], requires_grad=True) for i in (1, 2))
    seen: list[list[float | None]] = []

    def take(gradients):
        seen.append([None if g is None else g.item() for g in gradients])

    gf.autograd.graph.register_multi_grad_hook((u, v), take)

    def fail(gradient):
        raise KeyError

    product = u * 1
    handle = product.register_hook(fail)
    with pytest.raises(KeyError):
        (product + v * 5).sum().backward()
    handle.remove()
    other = (v * 7).sum()

    def inner(gradient):
        other.backward()

    result = u * 3
    result.register_hook(inner)
    result.sum().backward()
    assert seen == [[None, 7.0], [3.0, None]]
    gf.autograd.grad((u * v).sum(), [u, v])
    assert seen[2:] == [[2.0, 1.0]]
